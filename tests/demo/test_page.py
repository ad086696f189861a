"""The demo page: answers, refusals, and one session in a real browser."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cli.commands import refused
from fsaf.cli import main
from fsaf.config import Config, DataConfig, ModelConfig
from fsaf.data.records import Classes
from fsaf.demo import page
from fsaf.demo.look import look
from fsaf.detection.detector import Detector
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


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    PICTURE.save(path)
    return path


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 192, 3), dtype=np.uint8))


@pytest.mark.parametrize(("score", "iou"), [(0.3, 0.5), (0.62, 0.5), (0.3, 0.9)])
def test_choosing_afterwards_is_predicting_with_those_settings(
    detector: Detector, score: float, iou: float, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = look(detector, picture, page.PIXELS)
    detector.config.predict.nms_iou = iou
    expected = detector.predict(PICTURE, score_threshold=score)
    monkeypatch.setattr(FSAF, "forward", None)  # the network does not run again
    found = seen.choose(score, iou)
    assert len(found) == len(expected) > 0
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.levels, expected.levels)
    assert found.names == expected.names and found.size == expected.size


def test_rows_list_what_is_drawn_in_pixels_of_the_picture(detector: Detector, picture: Path) -> None:
    seen = look(detector, picture, page.PIXELS)
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
    given = tmp_path / "mine" / "checkpoints" / "last.pt"
    assert page.find_models([given]) == [given, given.parent / "best.pt"]
    assert [path.relative_to(tmp_path).as_posix() for path in page.find_models([given], tmp_path)] == [
        "mine/checkpoints/last.pt",
        "mine/checkpoints/best.pt",
        "quickstart/checkpoints/best.pt",
        "quickstart/model.onnx",
    ]
    names = [Path("fsaf_r50_coco"), Path("hf:me/mine")]
    assert page.find_models(names) == names


def test_the_command_takes_what_predict_takes(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[list[str]] = []
    monkeypatch.setattr(page, "serve", lambda models, *_: served.append([str(model) for model in models]))
    monkeypatch.chdir(tmp_path)
    refused(capsys, ["demo"], "no CHECKPOINT given, and no run in runs")
    for run in ("old", "new"):
        file = Path("runs") / run / "checkpoints" / "best.pt"
        file.parent.mkdir(parents=True)
        shutil.copy(checkpoint, file)
        seconds = 2_000_000_000 + (run == "new")
        os.utime(file, (seconds, seconds))
    new, old = "runs/new/checkpoints/best.pt", "runs/old/checkpoints/best.pt"
    for words, models in (
        ([], [new, old]),
        (["runs/old"], [old]),
        (["fsaf_r50_coco", "runs/new", "hf:me/mine"], ["fsaf_r50_coco", new, "hf:me/mine"]),
    ):
        assert main(["demo", *words]) == 0
        assert served.pop() == models


def test_mistakes_are_told_on_the_page(
    detector: Detector, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradio = pytest.importorskip("gradio")
    other = tmp_path / "other.pt"
    detector.config.data.max_pixels = 60_000
    detector.save(checkpoint)
    monkeypatch.setattr(page, "PIXELS", 200)
    app = page.make_page([checkpoint, other], "cpu", folder=tmp_path)
    see = next(iter(app.fns.values())).fn
    small = tmp_path / "small.png"
    Image.new("RGB", (16, 16)).save(small)
    with pytest.raises(gradio.Error, match="16 x 16 is more than the limit = 200"):
        see(str(small), str(checkpoint), 0.3, 0.5, False)
    monkeypatch.setattr(page, "PIXELS", 100_000)
    with pytest.raises(gradio.Error, match="is not one of the models"):
        see(str(small), "/etc/passwd", 0.3, 0.5, False)
    large = tmp_path / "large.png"
    Image.new("RGB", (300, 300)).save(large)
    with pytest.raises(gradio.Error, match=r"the picture: 300 x 300 is more than the limit = 60,000"):
        see(str(large), str(checkpoint), 0.3, 0.5, False)
    other.write_bytes(b"damaged")
    with pytest.raises(gradio.Error, match="not a readable checkpoint"):
        see(str(small), str(other), 0.3, 0.5, False)
    for content in (b"", b"<svg/>", b"\x89PNG\r\n\x1a\n"):
        large.write_bytes(content)
        with pytest.raises(gradio.Error, match="the picture: does not decode"):
            see(str(large), str(checkpoint), 0.3, 0.5, False)


@pytest.fixture
def served(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("gradio")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    app = page.make_page([checkpoint], "cpu", folder=tmp_path)
    _, url, _ = page.launch(app, "127.0.0.1", None, quiet=True, prevent_thread_lock=True)
    yield url
    app.close()


def test_requests_to_another_name_are_refused(served: str) -> None:
    """A page of a stranger can have its own name point to 127.0.0.1 (DNS rebinding)."""
    import httpx

    port = served.rstrip("/").rpartition(":")[2]
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", "127.0.0.1", f"[::1]:{port}"):
        assert httpx.get(served, headers={"host": host}).status_code == 200
    for host in (f"evil.example:{port}", "evil.example", "", f"127.0.0.1.evil.example:{port}"):
        assert httpx.get(served, headers={"host": host}).status_code == 421


def test_uploads_are_limited_before_they_are_kept(served: str, tmp_path: Path) -> None:
    import httpx

    def sent(count: int) -> Iterator[bytes]:
        for _ in range(count):
            yield bytes(1_000_000)

    upload = f"{served.rstrip('/')}/gradio_api/upload"
    files = {"files": ("a.png", bytes(page.UPLOAD + 2_000_000))}
    assert httpx.post(upload, files=files).status_code == 413
    assert httpx.post(upload, files={"files": ("a.png", bytes(page.UPLOAD + 1000))}).status_code == 413
    join = f"{served.rstrip('/')}/gradio_api/queue/join"
    assert httpx.post(join, content=bytes(page.UPLOAD + 2_000_000)).status_code == 413
    with contextlib.suppress(httpx.HTTPError):  # in chunks, without a length: the connection ends
        assert httpx.post(join, content=sent(30), timeout=20).status_code >= 400
    assert httpx.get(served).status_code == 200


def test_others_are_served_while_a_large_picture_is_decoded(served: str, tmp_path: Path) -> None:
    """50 million pixels of 16 bits in a small file: some seconds of work."""
    import gradio_client
    import httpx

    deep = tmp_path / "deep.png"
    Image.fromarray(np.zeros((7000, 7000), np.uint16)).save(deep)
    assert deep.stat().st_size < 200_000
    client = gradio_client.Client(served, verbose=False)
    job = client.submit(
        gradio_client.handle_file(str(deep)), client_model(client), 0.3, 0.5, False, api_name="/see"
    )
    slowest, asked, began = 0.0, 0, time.perf_counter()
    while not job.done():
        start = time.perf_counter()
        assert httpx.get(f"{served}config", timeout=30).status_code == 200
        slowest, asked = max(slowest, time.perf_counter() - start), asked + 1
        time.sleep(0.05)
    assert job.result()[0]
    assert asked > 5 and slowest < (time.perf_counter() - began) / 2


def client_model(client: Any) -> str:
    """The first model of the page."""
    info = client.view_api(return_format="dict")["named_endpoints"]["/see"]["parameters"]
    return next(each["parameter_default"] for each in info if each["label"] == "Model")


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_in_the_temporary_folder(checkpoint: Path, tmp_path: Path, number: int) -> None:
    """After SIGKILL the next start clears it."""
    pytest.importorskip("gradio")
    folder = tmp_path / "tmp"
    folder.mkdir()
    env = {key: value for key, value in os.environ.items() if key != "GRADIO_TEMP_DIR"}
    env |= {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}

    def start(number: int) -> None:
        words = [sys.executable, "-m", "fsaf", "demo", str(checkpoint), "--port", "0", "--device", "cpu"]
        with subprocess.Popen(
            words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as demo:
            assert demo.stdout is not None
            for line in demo.stdout:
                if "http://" in line:
                    break
            assert [path.name.startswith("fsaf-demo.") for path in folder.glob("fsaf*")] == [True]
            demo.send_signal(number)
            demo.wait(60)

    start(number)
    if number == signal.SIGKILL:
        start(signal.SIGINT)
    assert list(folder.iterdir()) == []
