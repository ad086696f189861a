"""Links, paths and figures of README and docs, the site, and other files of the repository."""

import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

import fsaf
from documents import PAGES, ROOT, anchor, headings, inline, links

DOCS = ROOT / "docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, part = link.partition("#")
        if link.startswith(("http://", "https://")):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and target.is_relative_to(ROOT), link
        if part:
            assert part in [anchor(text) for _, text in headings(target)], link
        if DOCS in page.parents:  # the site holds docs/ alone
            assert target.is_relative_to(DOCS), link


def test_paths_in_inline_code_exist() -> None:
    found = 0
    for page in PAGES:
        for code in inline(page):
            if re.fullmatch(r"(tests|tools|benchmarks|docs|src|examples)(/[\w.-]+)+/?", code):
                if page.name == "coming-from-mmdetection.md" and code.startswith("tools/"):
                    continue  # files of MMDetection
                found += 1
                assert (ROOT / code).exists(), f"{page.relative_to(ROOT)}: {code}"
    assert found > 20


def test_names_of_files_in_inline_code_are_names_of_files() -> None:
    """``objective/assign.py``, ``nms.py``: the end of the path of some file of the package or beside it."""
    folders = ("src", "tests", "tools", "benchmarks")
    files = [f"/{path.relative_to(ROOT)}" for name in folders for path in (ROOT / name).rglob("*.py")]
    found = 0
    for page in PAGES:
        for code in inline(page) if page.name != "coming-from-mmdetection.md" else []:
            match = re.match(r"(?:\.\./)?([\w/]+\.py)(?: |$)", code)
            if match and "NAME" not in code:
                found += 1
                assert any(path.endswith(f"/{match[1]}") for path in files), (
                    f"{page.relative_to(ROOT)}: {code}"
                )
    assert found > 80


def test_every_figure_is_shown_and_small() -> None:
    shown = {
        (page.parent / link).resolve() for page in PAGES for link in links(page) if link.endswith(".png")
    }
    pictures = {path.resolve() for path in DOCS.rglob("*.png")}
    assert pictures == shown and len(pictures) >= 6
    for path in pictures:
        assert path.stat().st_size < 600_000
        with Image.open(path) as image:
            assert image.width >= 600


def pages_of(entry: object) -> list[str]:
    """Return every page in a part of the site's navigation."""
    if isinstance(entry, str):
        return [entry]
    parts = entry if isinstance(entry, list) else list(dict(entry).values())  # type: ignore[call-overload]
    return [page for part in parts for page in pages_of(part)]


def test_every_page_is_in_the_navigation() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = pages_of(config["nav"])
    assert sorted(listed) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_the_site_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    pytest.importorskip("material")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "FSAF for PyTorch" in page
    assert not re.findall(
        r'<(?:script|link rel="stylesheet")[^>]*(?:src|href)="https?://', page
    )  # no network


def test_the_citation_names_the_paper_and_this_version() -> None:
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= content.keys()  # what the format requires
    assert content["version"] == fsaf.__version__ and content["license"] == "Apache-2.0"
    (paper,) = content["references"]
    assert [person["family-names"] for person in paper["authors"]] == ["Zhu", "He", "Savvides"]
    assert paper["year"] == 2019


def test_the_changelog_has_this_version() -> None:
    assert f"\n## {fsaf.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
