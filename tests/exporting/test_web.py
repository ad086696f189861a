"""The page of ``--web``: its folder, its runtime's download, and what it finds in a real browser."""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from checkpoints.servers import Manners, serve
from fsaf.config import DataConfig, PredictConfig
from fsaf.data.arrays import resize_array
from fsaf.data.shapes import fit_image, padded_shape
from fsaf.data.transforms import resize
from fsaf.detection.detector import load
from fsaf.errors import CheckpointError, UserError
from fsaf.exporting import web
from fsaf.exporting.onnx import ExportReport, export_onnx
from fsaf.exporting.web import check_web, how_to_open, write_web
from fsaf.model.detector import FSAF
from random_networks import CLASSES, CONFIG, SIZE, pictures

pytestmark = pytest.mark.slow

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
FILE = Path("model.onnx")
FILES = {"index.html", "page.css", "page.js", "pixels.js", "worker.js"}


# The folder, without the real runtime.


def package_of(*names: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    return packed.getvalue()


@pytest.fixture
def manners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manners]:
    """A server that stands in for npm's, with a package of the same layout; and an empty cache."""
    stand_in = Manners(package_of("package/package.json", *web.RUNTIME))
    monkeypatch.setenv("FSAF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(web, "SHA256", hashlib.sha256(stand_in.content).hexdigest())
    monkeypatch.setattr("fsaf.checkpoints.download.PAUSE", 0.0)
    with serve(stand_in) as address:
        monkeypatch.setattr(web, "URL", f"{address}/runtime.tgz")
        yield stand_in


def test_the_folder_holds_all_that_the_page_needs(
    manners: Manners, dynamic: ExportReport, tmp_path: Path
) -> None:
    folder = write_web(dynamic.path, tmp_path / "page")
    assert {path.name for path in folder.iterdir()} == FILES | {
        "detector.json",
        "model.onnx",
        "ort.js",
        "ort.wasm",
    }
    assert (folder / "model.onnx").read_bytes() == dynamic.path.read_bytes()
    assert [(folder / name).read_text() for name in web.RUNTIME.values()] == list(web.RUNTIME)
    about = json.loads((folder / "detector.json").read_text(encoding="utf-8"))
    assert about["classes"] == list(CLASSES.names) and len(about["colors"]) == 3
    assert about["data"]["shapes"] == [list(SIZE)] and (about["float_images"], about["takes_sizes"]) == (
        True,
        True,
    )
    assert "/secret" not in json.dumps(about)
    for name in FILES:
        text = (folder / name).read_text(encoding="utf-8")
        assert "https:" not in text and text.count("http:") == text.count("http://127.0.0.1:8000"), name
    write_web(dynamic.path, tmp_path / "again")
    assert len(manners.requests) == 1, "the runtime is downloaded once"
    assert f"--directory '{tmp_path}/a b'" in how_to_open(tmp_path / "a b")


def test_nothing_is_left_without_the_runtime(manners: Manners, dynamic: ExportReport, tmp_path: Path) -> None:
    manners.status = 404
    with pytest.raises(CheckpointError, match=r"runtime\.tgz: cannot .* put it at .*home.runtime\.tgz"):
        write_web(dynamic.path, tmp_path / "page")
    manners.status, manners.content = 200, b"something else"
    with pytest.raises(CheckpointError, match="is not the file that it should be"):
        write_web(dynamic.path, tmp_path / "page")
    (tmp_path / "home" / "runtime.tgz").write_bytes(package_of("package/package.json"))
    with pytest.raises(CheckpointError, match=r"runtime\.tgz: is damaged .* delete it"):
        write_web(dynamic.path, tmp_path / "page")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_what_no_page_can_stand_for(tmp_path: Path) -> None:
    folder = tmp_path / "page"
    for options, message in (
        ({"outputs": "raw"}, "leave out --raw"),
        ({"outputs": "head"}, "leave out --raw and --for"),
        ({"batch": 2}, "one picture at a time"),
    ):
        with pytest.raises(UserError, match=f"web: .*{message}"):
            check_web(folder, FILE, CONFIG, options)
    with pytest.raises(UserError, match=r"web: .*predict\.tile"):
        check_web(folder, FILE, replace(CONFIG, predict=PredictConfig(tile=64)), {})
    with pytest.raises(UserError, match=r"web: .*data\.exif_rotation"):
        check_web(folder, FILE, replace(CONFIG, data=DataConfig(exif_rotation=False)), {})
    with pytest.raises(UserError, match=r"web: .*--format onnx"):
        check_web(folder, Path("model.xml"), CONFIG, {})
    check_web(folder, FILE, CONFIG, {"batch": 1, "dynamic_batch": True})
    folder.mkdir()
    check_web(folder, FILE, CONFIG, {})
    (folder / "mine.txt").touch()
    with pytest.raises(UserError, match=r"page: is not empty; give another folder"):
        check_web(folder, FILE, CONFIG, {})
    with pytest.raises(UserError, match=r"mine\.txt: is a file"):
        check_web(folder / "mine.txt", FILE, CONFIG, {})


# The page, in a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright: Any = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("needs the browser chromium (on Debian: apt install chromium)")
    try:
        web.fetch_runtime()
    except UserError as error:
        pytest.skip(f"needs onnxruntime-web: {error}")
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def without_sizes(model: FSAF, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """A file of uint8 images of one size that takes no sizes."""
    path = tmp_path_factory.mktemp("no_sizes") / "model.onnx"
    return export_onnx(model, CLASSES, CONFIG, path, size=SIZE, fixed_size=True, batches=[pictures(1)])


@pytest.fixture(scope="module", params=["dynamic", "without_sizes"])
def served(request: pytest.FixtureRequest, browser: Any, tmp_path_factory: Any) -> Iterator[tuple[Path, str]]:
    """An exported file, and the address of its page."""
    path = request.getfixturevalue(request.param).path
    folder = write_web(path, tmp_path_factory.mktemp(request.param) / "page")
    with served_folder(folder) as address:
        yield path, address


class served_folder:
    """Context manager: a web server for a folder; gives its address."""

    def __init__(self, folder: Path) -> None:
        handler = partial(Quiet, directory=str(folder))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures: of the network's size, larger, smaller, photos, turned ones, grey and palette."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)

    def blocks(height: int, width: int) -> Image.Image:
        small = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
        return Image.fromarray(small.repeat(8, 0).repeat(8, 1)[:height, :width])

    blocks(*SIZE).save(folder / "native.png")
    blocks(301, 417).save(folder / "large.png")
    blocks(37, 45).save(folder / "small.png")
    blocks(90, 90).convert("P").save(folder / "palette.png")
    blocks(120, 70).convert("L").save(folder / "grey.png")
    blocks(300, 500).save(folder / "photo.jpg", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6
    blocks(200, 320).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "deep.png")
    (folder / "broken.png").write_bytes((folder / "native.png").read_bytes()[:300])
    return folder


def opened(browser: Any, address: str, **options: Any) -> Any:
    """A tab with the page, ready; ``asked`` has the addresses of its requests."""
    context = browser.new_context(**options)
    tab = context.new_page()
    tab.asked, tab.said = [], []
    context.on("request", lambda request: tab.asked.append(request.url))
    tab.on("console", lambda message: tab.said.append(message.text))
    tab.goto(address)
    expect_told(tab, r"Ready\.")
    return tab


def expect_told(tab: Any, pattern: str) -> None:
    """Wait until the page says this; the page's policy forbids Playwright's ``wait_for_function``."""
    from playwright.sync_api import expect

    expect(tab.locator("#told")).to_have_text(re.compile(f"^{pattern}$"), timeout=60_000)


def choose(tab: Any, path: Path) -> None:
    tab.locator("#file").set_input_files(str(path))
    expect_told(tab, rf"{re.escape(path.name)}: ([^…]* s|is not .*|has more .*)")


def saved(tab: Any) -> dict[str, Any]:
    with tab.expect_download(timeout=20_000) as download:
        tab.get_by_role("button", name="Download as JSON").click()
    return json.loads(Path(download.value.path()).read_text(encoding="utf-8"))


def slide(tab: Any, value: float) -> None:
    tab.locator("#threshold").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value
    )


def test_it_finds_what_fsaf_finds(browser: Any, served: tuple[Path, str], photos: Path) -> None:
    """To the last digit for PNG, whose pixels are the same; JPEG may decode to others by a grey level."""
    path, address = served
    tab, detector, total = opened(browser, address), load(path), 0
    for name in ("native", "large", "small", "palette", "grey"):
        choose(tab, photos / f"{name}.png")
        slide(tab, 0.1)
        found, result = saved(tab), detector.predict(photos / f"{name}.png", score_threshold=0.1)
        expected = result.to_dict()
        assert found["size"] == expected["size"] and found["image"] == f"{name}.png"
        assert [one["name"] for one in found["detections"]] == result.names
        assert np.array([one["box"] for one in found["detections"]]) == pytest.approx(result.boxes, abs=0.002)
        assert [one["score"] for one in found["detections"]] == pytest.approx(result.scores, abs=1e-5)
        total += len(result)
    assert total > 50
    for name in ("photo.jpg", "turned.jpg"):
        choose(tab, photos / name)
        slide(tab, 0.3)
        found, result = saved(tab), detector.predict(photos / name)
        assert found["size"] == list(result.size)
        assert len(found["detections"]) == len(result) > 0
        assert np.array([one["box"] for one in found["detections"]]) == pytest.approx(result.boxes, abs=1)
        assert [one["score"] for one in found["detections"]] == pytest.approx(result.scores, abs=0.01)
    assert all(url.startswith((address, f"blob:{address}")) for url in tab.asked)
    assert tab.said == []


def test_the_slider_and_the_keyboard(browser: Any, served: tuple[Path, str], photos: Path) -> None:
    path, address = served
    tab = opened(browser, address)
    choose(tab, photos / "large.png")
    count = len(load(path).predict(photos / "large.png"))
    assert tab.locator("#rows tr").count() == count > 0
    slide(tab, 0.99)
    assert tab.locator("#count").inner_text() == "No objects found"
    assert saved(tab)["detections"] == []
    slide(tab, 0.3)
    assert tab.locator("#rows tr").count() == count
    tab.locator("#threshold").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#score").inner_text() == "0.31"
    before = tab.locator("#view").evaluate("view => view.toDataURL()")
    tab.locator("#rows tr").first.focus()  # shows this one alone
    assert tab.locator("#view").evaluate("view => view.toDataURL()") != before


def test_mistakes_are_told(browser: Any, served: tuple[Path, str], photos: Path) -> None:
    _, address = served
    tab = opened(browser, address)
    for name, message in (("broken.png", "is not a picture that"), ("deep.png", "more than 8 bits")):
        choose(tab, photos / name)
        assert message in tab.locator("#told").inner_text()
        assert tab.locator("#view").is_hidden() and tab.locator("#found").is_hidden()
    choose(tab, photos / "native.png")
    assert tab.locator("#found").is_visible()
    without = browser.new_context()
    without.add_init_script("delete globalThis.WebAssembly")
    page = without.new_page()
    page.goto(address)
    assert "lacks WebAssembly" in page.locator("#told").inner_text()
    lost = browser.new_context().new_page()
    lost.context.route("**/model.onnx", lambda route: route.fulfill(status=404))
    lost.goto(address)
    expect_told(lost, r".*model\.onnx: the server answers 404.*")


def test_a_picture_may_be_dropped_or_pasted(browser: Any, served: tuple[Path, str], photos: Path) -> None:
    _, address = served
    tab = opened(browser, address)
    content = list((photos / "native.png").read_bytes())
    for kind, make in (
        ("drop", "new DragEvent('drop', {dataTransfer: box})"),
        ("paste", "new ClipboardEvent('paste', {clipboardData: box})"),
    ):
        tab.evaluate(
            "([content, name]) => { const box = new DataTransfer(); "
            "box.items.add(new File([new Uint8Array(content)], name, {type: 'image/png'})); "
            f"document.dispatchEvent({make}); }}",
            [content, f"{kind}.png"],
        )
        tab.get_by_text(f"{kind}.png: 96 x 64").wait_for(timeout=60_000)


def test_nothing_can_be_sent_elsewhere(browser: Any, served: tuple[Path, str]) -> None:
    _, address = served
    tab = opened(browser, address)
    options = "{method: 'POST', mode: 'no-cors', body: 'picture'}"
    send = f"url => fetch(url, {options}).then(() => 'sent', () => 'refused')"
    manners = Manners(b"")
    with serve(manners) as elsewhere:
        assert tab.evaluate(send, f"{elsewhere}/") == "refused"
        assert tab.workers[0].evaluate(send, f"{elsewhere}/") == "refused"
    assert manners.requests == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_any_width(
    browser: Any, served: tuple[Path, str], photos: Path, width: int, scheme: str
) -> None:
    _, address = served
    tab = opened(browser, address, viewport={"width": width, "height": 800}, color_scheme=scheme)
    choose(tab, photos / "large.png")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    grounds = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (grounds == "rgb(19, 23, 27)") == (scheme == "dark")
    if folder := os.environ.get("FSAF_SCREENSHOTS"):
        tab.screenshot(path=str(Path(folder) / f"web-{width}-{scheme}.png"), full_page=True)


def test_pictures_are_resized_as_by_fsaf(browser: Any, served: tuple[Path, str]) -> None:
    _, address = served
    tab = opened(browser, address)
    rng = np.random.default_rng(0)
    call = (
        "async ([rgba, from, to, smooth]) => Array.from((await import('./pixels.js'))"
        ".resize(Uint8ClampedArray.from(rgba), from, to, smooth))"
    )
    for _ in range(12):
        old, new = (tuple(int(v) for v in rng.integers(1, 60, 2)) for _ in range(2))
        pixels = rng.integers(0, 256, (*old, 3), dtype=np.uint8)
        rgba = np.dstack([pixels, np.full(old, 255, np.uint8)]).ravel().tolist()
        found = np.array(tab.evaluate(call, [rgba, old, new, False]), np.uint8).reshape(*new, 3)
        np.testing.assert_array_equal(found, pixels if old == new else resize_array(pixels, new))
        smooth = np.array(tab.evaluate(call, [rgba, old, new, True])).reshape(*new, 3)
        expected = resize(torch.from_numpy(pixels).permute(2, 0, 1), new, antialias=True).permute(1, 2, 0)
        assert np.abs(smooth - expected.numpy().astype(int)).max() <= 1
    for changes in ({"shapes": [(64, 96), (96, 64)]}, {"shapes": [(64, 64)]}, {"pad": 64}, {"shapes": None}):
        data = replace(CONFIG.data, **changes)
        values = {name: getattr(data, name) for name in ("short_side", "long_side", "shapes", "pad")}
        for _ in range(10):
            old = tuple(int(v) for v in rng.integers(1, 3000, 2))
            fit = "async ([old, data]) => (await import('./pixels.js')).fit(old, data)"
            found, padded = tab.evaluate(fit, [old, values])
            size, shape = fit_image(old, data)
            assert tuple(found) == size and tuple(padded) == (shape or padded_shape([size], data.pad or 32))
