"""README and docs as tests read them: code blocks, inline code, links, headings, figures."""

import re
import shlex
import textwrap
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
"""Every Markdown file of the repository."""

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of code."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """``docs/ascend.md:12``, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start()) + 1,
            language=match[2],
            text=textwrap.dedent(match[3]),
        )
        for match in _FENCE.finditer(text)
    ]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def commands(block: Block) -> list[list[str]]:
    """Return the commands of a block as words, without comments, redirections and variables, lines joined."""
    joined = block.text.replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in joined.splitlines()]
    found = [words[: words.index(">")] if ">" in words else words for words in lines]
    found = [
        list(dropwhile(re.compile(r"[A-Z_]+=").match, words)) for words in found
    ]  # OMP_NUM_THREADS=1 fsaf
    return [words for words in found if words]


def inline(page: Path) -> list[str]:
    """Return the inline code of a page, each piece on one line."""
    return [" ".join(code.split()).replace("\\|", "|") for code in re.findall(r"`([^`]+)`", prose(page))]


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def headings(page: Path) -> list[tuple[int, str]]:
    """Return level and text of each heading."""
    return [(len(m[1]), m[2]) for m in re.finditer(r"^(#+) (.+)$", prose(page), re.MULTILINE)]


def anchor(heading: str) -> str:
    """Return the name of a heading in links, as on GitHub and in MkDocs."""
    plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")
