"""Report and comparison in a real browser, on a phone's and on a desktop's width."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fsaf.reporting.compare import write_comparison
from fsaf.reporting.report import write_report
from run_folder.run_folders import write_run

pytestmark = pytest.mark.slow

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
SECTIONS = {
    "report": [
        *("Accuracy", "Accuracy of each class", "Precision and recall", "Confusion"),
        *("Kinds of error", "Which boxes are found"),
        *("Do scores mean what they say?", "Pyramid levels of detections", "Worst images", "Pictures"),
        *("Training", "Speed", "Data", "Export", "Commands", "Settings"),
    ],
    "comparison": ["Runs", "Accuracy", "AP of each class", "Training", "Settings that differ", "Speed"],
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright: Any = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("needs the browser chromium (on Debian: apt install chromium)")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        yield browser
        browser.close()


@pytest.mark.parametrize("kind", list(SECTIONS))
def test_a_page_shows_everything_at_any_width_and_asks_for_nothing(
    browser: Any, tmp_path: Path, kind: str
) -> None:
    write_run(tmp_path, "a-run")
    if kind == "report":
        path = write_report(tmp_path / "a-run")
    else:
        names = ["a-run", *(f"another-run-with-a-long-name-{i}" for i in range(5))]
        for name in names[1:]:
            shutil.copytree(tmp_path / "a-run", tmp_path / name)
        path = write_comparison([tmp_path / name for name in names], tmp_path / "page.html")
    said: list[str] = []
    asked: list[str] = []
    for width in (360, 1280):
        tab = browser.new_page(viewport={"width": width, "height": 800})
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(path.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        # Nothing is wider than the page, except tables that scroll by themselves.
        out = "[...document.querySelectorAll('main *:not(.scroll *, .tall *, pre *)')].filter(e =>"
        out += " e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 80))"
        assert tab.evaluate(out) == []
        assert tab.get_by_role("heading", level=2).all_inner_texts() == SECTIONS[kind]
        pictures = tab.locator("img").evaluate_all("all => all.map(e => e.complete && e.naturalWidth > 0)")
        assert all(pictures) and (len(pictures) > 4) == (kind == "report")
        heights = tab.locator("svg").evaluate_all("all => all.map(e => e.getBoundingClientRect().height)")
        assert len(heights) == {"report": 6, "comparison": 2}[kind] and min(heights) > 100
        if folder := os.environ.get("FSAF_SCREENSHOTS"):
            tab.screenshot(path=str(Path(folder) / f"{kind}-{width}.png"), full_page=True)
    tab.emulate_media(media="print")
    if kind == "report":  # on paper nothing can be unfolded
        assert tab.locator("pre").evaluate("e => e.getBoundingClientRect().height") > 100
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()] * 2
