"""Every form of a picture that a detector takes, and what is refused."""

import io
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detection.comparing import noise
from fsaf.config import Config, DataConfig
from fsaf.detection import fetch as fetch_module
from fsaf.detection.detector import Detector
from fsaf.detection.fetch import fetch
from fsaf.detection.picture import open_picture
from fsaf.errors import UserError
from synthetic import CLASSES, Picture, SeesColours, paint
from web import serving

DATA = DataConfig(short_side=64, long_side=96)


@pytest.fixture
def sees() -> Detector:
    """A detector that detects coloured rectangles."""
    return Detector(SeesColours().eval(), CLASSES, Config(data=DATA))


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def opened(picture: Any) -> np.ndarray:
    return open_picture(picture, DATA).image


FORMS: dict[str, Callable[[Path, np.ndarray], Any]] = {
    "path": lambda path, _: path,
    "str": lambda path, _: str(path),
    "bytes": lambda _, pixels: png(pixels),
    "bytearray": lambda _, pixels: bytearray(png(pixels)),
    "file": lambda _, pixels: io.BytesIO(png(pixels)),
    "pillow": lambda path, _: Image.open(path),
    "array": lambda _, pixels: pixels,
    "array with transparency": lambda _, pixels: np.dstack((pixels, pixels[:, :, 0])),
    "floats 0..1": lambda _, pixels: pixels / 255,
    "floats 0..255": lambda _, pixels: pixels.astype(np.float32),
    "integers": lambda _, pixels: pixels.astype(np.int64),
    "tensor": lambda _, pixels: tensor(pixels),
    "tensor 0..1": lambda _, pixels: tensor(pixels) / 255,
    "tensor 0..255": lambda _, pixels: tensor(pixels).double(),
    "bfloat16 tensor 0..255": lambda _, pixels: tensor(pixels).to(torch.bfloat16),
    "tensor with a gradient": lambda _, pixels: tensor(pixels).float().requires_grad_(),
    "strided array": lambda _, pixels: np.asfortranarray(pixels),
    "reversed array": lambda _, pixels: pixels[:, :, ::-1].copy()[:, :, ::-1],  # as from OpenCV's BGR
    "array to read": lambda _, pixels: np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [(64, 96), (50, 37)])
def test_every_form_has_the_same_pixels(form: str, size: tuple[int, int], tmp_path: Path) -> None:
    pixels = noise(*size)
    path = tmp_path / "a.png"
    path.write_bytes(png(pixels))
    found = open_picture(FORMS[form](path, pixels), DATA)
    assert found.image.dtype == np.uint8 and found.size == size
    assert (found.image == pixels).all()
    assert found.path == (str(path) if form in ("path", "str") else None)


def test_grey_pictures() -> None:
    grey = noise(64, 96)[:, :, 0]
    tensors = (torch.from_numpy(grey), torch.from_numpy(grey)[None], torch.from_numpy(grey)[None] / 255)
    for picture in (grey, grey[:, :, None], grey / 255, Image.fromarray(grey), *tensors):
        assert (opened(picture) == grey[:, :, None]).all()


def test_sixteen_bits_are_the_same_from_a_file_and_from_memory(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (60, 80)).astype(np.uint16)
    values[3, 3] = 65535  # a hot pixel
    Image.fromarray(values).save(tmp_path / "a.png")
    from_file = opened(tmp_path / "a.png")
    assert (opened(values) == from_file).all() and (opened(values.astype(">u2")) == from_file).all()
    assert (opened(torch.from_numpy(values)) == from_file).all()
    assert (opened(Image.open(tmp_path / "a.png")) == from_file).all()
    assert 120 < np.median(from_file) < 135


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "RGBX", "I;16"]
)
def test_pillow_images_of_every_mode(mode: str) -> None:
    image = Image.fromarray(noise(8, 12))
    image = image.convert("L").convert(mode) if mode in ("I;16", "LA") else image.convert(mode)
    assert opened(image).shape == (8, 12, 3)


def test_several_pictures_in_one_array(sees: Detector) -> None:
    pictures = np.stack(
        [paint(Picture(height=64, width=96, objects=[(8 * i, 16, 16, 16, 7)])) for i in range(3)]
    )
    for several in (pictures, torch.from_numpy(pictures).permute(0, 3, 1, 2), pictures / 255):
        results = sees.predict(several, batch_size=2)
        assert [result.boxes[0, 0] for result in results] == [0, 8, 16]
    dark = np.zeros((2, 64, 96, 3))
    dark[0] = 255
    dark[1] = 1  # of 255: it does not become white
    assert isinstance(sees.predict(dark), list)


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (np.full((8, 8, 3), np.nan), "NaN or infinite"),
        (torch.full((3, 8, 8), torch.inf), "NaN or infinite"),
        (np.full((8, 8, 3), -0.5), "pixels of -0.5; floats must be 0..1 or 0..255, not normalised"),
        (np.full((8, 8, 3), 300), r"int64 has pixels outside 0..255"),
        (np.full((8, 8, 3), -1, np.int16), r"int16 has pixels outside 0..255"),
        (np.zeros((8, 8, 3), bool), "picture of bool"),
        (np.zeros((8, 8, 3), complex), "picture of complex128"),
        (np.array(["a.jpg", "b.jpg"]), r"shape \[2\]"),
        (np.full((8, 8), "a"), "must be integers or floats"),
        (np.zeros((3, 8, 8), np.uint8), r"\[3, 8, 8\]"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"\[8, 8, 3\]"),
        (np.zeros((8, 8, 5), np.uint8), r"\[8, 8, 5\]"),
        (np.zeros((0, 8, 3), np.uint8), r"\[0, 8, 3\]"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"\[0, 8, 8, 3\]"),
        (np.zeros(8, np.uint8), r"\[8\]"),
        (np.zeros((1, 2, 8, 8, 3), np.uint8), r"\[1, 2, 8, 8, 3\]"),
        ([np.zeros((2, 8, 8, 3), np.uint8)], "is several; give them one by one"),
        (b"", "the picture: does not decode"),
        (b"no picture", "the picture: does not decode"),
        (io.StringIO("text"), "binary mode"),
        (3, "not int"),
        (None, "not NoneType"),
        ({"a": 1}, "not dict"),
        ([3], "not int"),
        ([None], "not NoneType"),
    ],
)
def test_what_is_not_a_picture_is_refused(sees: Detector, picture: Any, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        sees.predict(picture)
    assert "\n" not in str(error.value)


def test_a_damaged_pillow_image_is_refused(sees: Detector) -> None:
    damaged = Image.open(io.BytesIO(png(noise(64, 64))[:3000]))
    with pytest.raises(UserError, match="the picture does not decode"):
        sees.predict(damaged)


# Addresses.

Answers = dict[str, Any]


@pytest.fixture
def server() -> Iterator[tuple[str, Answers]]:
    """An address, and what the server answers by path: bytes, a status, or a place to go."""
    answers: Answers = {}

    def respond(request: BaseHTTPRequestHandler) -> None:
        answer = answers.get(request.path, 404)
        if answer == "silent":
            time.sleep(1)
            return
        if isinstance(answer, int):
            request.send_error(answer)
            return
        if isinstance(answer, str):
            request.send_response(302)
            request.send_header("Location", answer)
            request.end_headers()
            return
        request.send_response(200)
        request.send_header("Content-Type", "text/html" if answer.startswith(b"<") else "image/png")
        request.end_headers()
        request.wfile.write(answer)

    with serving(respond) as address:
        yield address, answers


def test_a_picture_on_the_web(sees: Detector, server: tuple[str, Answers]) -> None:
    address, answers = server
    scene = paint(Picture(height=64, width=96, objects=[(10, 16, 30, 20, 7)]))
    answers["/a.png"], answers["/moved"] = png(scene), "/a.png"
    for name in ("a.png", "moved"):
        result = sees.predict(f"{address}/{name}")
        assert result.boxes[0].tolist() == pytest.approx([10, 16, 40, 36], abs=1e-3)
        assert result.path == f"{address}/{name}"
    assert result.draw().size == (96, 64)


def test_addresses_without_a_picture(
    server: tuple[str, Answers], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address, answers = server
    monkeypatch.setattr(fetch_module, "MOST_BYTES", 50_000)
    monkeypatch.setattr(fetch_module, "TIMEOUT", 0.2)
    (tmp_path / "a.png").write_bytes(png(noise(8, 8)))
    answers |= {
        "/page": b"<html>",
        "/text": b"no picture",
        "/large": bytes(60_000),
        "/round": "/round",
        "/file": f"file://{tmp_path / 'a.png'}",
        "/silent": "silent",
        "/500": 500,
    }
    for name, told in (
        ("gone.png", "the server answers 404 Not Found"),
        ("500", "the server answers 500"),
        ("page", "is a web page, not a picture"),
        ("text", "does not decode as an image"),
        ("large", "is larger than 0 MB"),
        ("round", "redirects in a circle"),
        ("file", "to something other than http"),
        ("silent", "no answer in 0 seconds"),
    ):
        with pytest.raises(UserError) as error:
            open_picture(f"{address}/{name}", DATA)
        message = str(error.value)
        assert message.startswith(f"{address}/{name}: ") and told in message and "\n" not in message, name
    for url in (
        "http://",
        "http:///a.png",
        "http://127.0.0.1:1/a.png",
        "http://127.0.0.1:port/",
        "http://[/",
    ):
        with pytest.raises(UserError) as error:
            fetch(url)
        assert str(error.value).startswith(f"{url}: ")
