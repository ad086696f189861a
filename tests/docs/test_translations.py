"""The Chinese pages have the same commands, figures, code, links, headings and rows as the English ones."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from documents import ROOT, blocks, commands, headings, inline, links, prose

PAIRS = [
    (ROOT / "README.md", ROOT / "README.zh-CN.md"),
    (ROOT / "docs" / "ascend.md", ROOT / "docs" / "ascend.zh-CN.md"),
]
both = pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=lambda page: page.name)


def figures(page: Path) -> Counter[str]:
    """Return every number of text and tables, with decimals and percent sign, but none of links."""
    text = re.sub(r"\]\([^)]*\)", "]", prose(page))
    return Counter(re.findall(r"(?<![A-Za-z0-9_.])\d+(?:,\d{3})*(?:\.\d+)*(?:e-?\d+)?%?", text))


def targets(page: Path) -> Counter[str]:
    """Return the targets of links: of a translated page its original, and without places inside a page."""
    found = [link for link in links(page) if not link.startswith("#")]
    return Counter(link.replace(".zh-CN.md", ".md") for link in found)


def rows(page: Path) -> list[str]:
    """Return rows of tables and items of lists in order: the number of cells, or the mark of the item."""
    found = re.findall(r"^(\|.*|- |\d\. )", prose(page), re.MULTILINE)
    return [str(row.count("|")) if row.startswith("|") else row for row in found]


@both
def test_commands_are_the_same(english: Path, chinese: Path) -> None:
    one, other = blocks(english), blocks(chinese)
    assert [block.language for block in one] == [block.language for block in other]
    for mine, theirs in zip(one, other, strict=True):
        if mine.language == "python":  # comments are translated
            assert ast.dump(ast.parse(mine.text)) == ast.dump(ast.parse(theirs.text))
        else:
            assert commands(mine) == commands(theirs)


@both
def test_figures_are_the_same(english: Path, chinese: Path) -> None:
    assert sum(figures(english).values()) > 15
    assert figures(english) - figures(chinese) == Counter() == figures(chinese) - figures(english)


@both
def test_code_links_and_structure_are_the_same(english: Path, chinese: Path) -> None:
    assert Counter(inline(english)) == Counter(inline(chinese))
    assert targets(english) == targets(chinese)
    assert [level for level, _ in headings(english)] == [level for level, _ in headings(chinese)]
    rows = [
        [line.count("|") for line in prose(page).splitlines() if line.startswith("|")] for page in PAIRS[0]
    ]
    assert rows[0] == rows[1]
    items = [len(re.findall(r"^(?:- |\d\. )", prose(page), re.MULTILINE)) for page in (english, chinese)]
    assert items[0] == items[1]


@both
def test_each_names_the_other_at_its_top(english: Path, chinese: Path) -> None:
    assert f"]({chinese.name})" in "".join(english.read_text(encoding="utf-8").splitlines()[:4])
    assert f"]({english.name})" in "".join(chinese.read_text(encoding="utf-8").splitlines()[:4])
