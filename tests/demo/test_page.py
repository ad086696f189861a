"""The demo page: answers, refusals, and one session in a real browser."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fsaf.config import Config, DataConfig, ModelConfig
from fsaf.data.records import Classes
from fsaf.demo import page
from fsaf.demo.look import look
from fsaf.detection.detector import Detector
from fsaf.errors import UserError
from fsaf.model.detector import FSAF

pytestmark = pytest.mark.slow

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
OFFLINE = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


@pytest.fixture
def detector(tiny_model_config: ModelConfig) -> Detector:
    """An untrained detector that detects something everywhere."""
    model = FSAF(tiny_model_config, 2).eval()
    assert model.head.classes is not None and model.head.classes.bias is not None
    torch.nn.init.constant_(model.head.classes.bias, 0.5)
    config = Config(model=tiny_model_config, data=DataConfig(short_side=64, long_side=96, pad=32))
    return Detector(model, Classes(names=("cat", "dog"), ids=(1, 2)), config)


@pytest.fixture
def checkpoint(detector: Detector, tmp_path: Path) -> Path:
    path = tmp_path / "checkpoints" / "best.pt"
    detector.save(path)
    return path


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 192, 3), dtype=np.uint8))


@pytest.mark.parametrize(("score", "iou"), [(0.3, 0.5), (0.62, 0.5), (0.3, 0.9)])
def test_choosing_afterwards_is_predicting_with_those_settings(
    detector: Detector, score: float, iou: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = look(detector, PICTURE)
    detector.config.predict.nms_iou = iou
    expected = detector.predict(PICTURE, score_threshold=score)
    monkeypatch.setattr(FSAF, "forward", None)  # the network does not run again
    found = seen.choose(score, iou)
    assert len(found) == len(expected) > 0
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.levels, expected.levels)
    assert found.names == expected.names and found.size == expected.size


def test_rows_list_what_is_drawn_in_pixels_of_the_picture(detector: Detector) -> None:
    seen = look(detector, PICTURE)
    result = seen.choose(0.3, 0.5)
    table = page.rows(result)
    assert [row[0] for row in table] == result.names
    assert np.array([row[2:6] for row in table]) == pytest.approx(result.boxes, abs=0.51)
    assert {row[6] for row in table} <= {"P3", "P4", "P5", "P6", "P7"}
    by_class, by_level = (np.asarray(page.draw(seen, result, flag)) for flag in (False, True))
    assert by_class.shape == (128, 192, 3) and (by_class != by_level).any()


def test_models_to_choose_from(tmp_path: Path) -> None:
    for name in ("mine/checkpoints/best.pt", "quickstart/checkpoints/best.pt", "quickstart/model.onnx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mine" / "checkpoints" / "last.pt").touch()
    found = [path.relative_to(tmp_path).as_posix() for path in page.find_models([], tmp_path)]
    assert found == ["quickstart/checkpoints/best.pt", "quickstart/model.onnx", "mine/checkpoints/best.pt"]
    given = tmp_path / "mine" / "checkpoints" / "last.pt"
    assert page.find_models([given], tmp_path) == [given, given.parent / "best.pt"]
    with pytest.raises(UserError, match=r"no CHECKPOINT given.*fsaf quickstart"):
        page.find_models([], tmp_path / "empty")


def test_mistakes_are_told_on_the_page(
    detector: Detector, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradio = pytest.importorskip("gradio")
    other = tmp_path / "other.pt"
    detector.config.data.max_pixels = 300
    detector.save(checkpoint)
    monkeypatch.setattr(page, "PIXELS", 100)
    app = page.make_page([checkpoint, other], "cpu")
    see = next(iter(app.fns.values())).fn
    with pytest.raises(gradio.Error, match="million pixels"):
        see(Image.new("RGB", (20, 20)), str(checkpoint), 0.3, 0.5, False)
    monkeypatch.setattr(page, "PIXELS", 1000)
    with pytest.raises(gradio.Error, match="is not one of the models"):
        see(Image.new("RGB", (20, 20)), "/etc/passwd", 0.3, 0.5, False)
    with pytest.raises(gradio.Error, match=r"20 x 20 is more than data\.max_pixels = 300"):
        see(Image.new("RGB", (20, 20)), str(checkpoint), 0.3, 0.5, False)
    other.write_bytes(b"damaged")
    with pytest.raises(gradio.Error, match="not a readable checkpoint"):
        see(Image.new("RGB", (8, 8)), str(other), 0.3, 0.5, False)


@pytest.fixture
def served(checkpoint: Path) -> Iterator[str]:
    pytest.importorskip("gradio")
    app = page.make_page([checkpoint], "cpu")
    _, url, _ = app.launch(
        server_name="127.0.0.1", share=False, quiet=True, prevent_thread_lock=True, max_file_size=page.UPLOAD
    )
    yield url
    app.close()


def test_in_a_browser(served: str, tmp_path: Path) -> None:
    """Upload a picture, see boxes, move the slider, colour by level, download."""
    playwright: Any = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("needs the browser chromium (on Debian: apt install chromium)")
    picture = tmp_path / "picture.png"
    PICTURE.save(picture)
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=BROWSER, args=OFFLINE)
        tab = browser.new_page()
        tab.goto(served)
        tab.locator("input[type=file]").first.set_input_files(str(picture))
        told = tab.locator("#told")
        playwright.expect(told).to_contain_text("found; reading and network took", timeout=60_000)
        first = int(told.inner_text().split()[0])
        assert first > 0
        tab.locator("td", has_text=re.compile("cat|dog")).first.wait_for(state="attached", timeout=20_000)
        number = tab.get_by_label("number input for Lowest score shown")
        number.fill("0.9")
        number.press("Enter")
        number.blur()
        playwright.expect(told).to_contain_text(re.compile(r"^\s*0 found"), timeout=20_000)
        number.fill("0.3")
        number.blur()
        playwright.expect(told).to_contain_text(re.compile(rf"^\s*{first} found"), timeout=20_000)
        tab.get_by_label("Colours of pyramid levels").check()
        with tab.expect_download(timeout=20_000) as download:
            tab.get_by_role("button", name="Download as JSON").click()
        found = json.loads(Path(download.value.path()).read_text())
        assert len(found["detections"]) == first and found["size"] == [128, 192]
        if folder := os.environ.get("FSAF_SCREENSHOTS"):
            tab.screenshot(path=str(Path(folder) / "demo.png"), full_page=True)
        browser.close()
