"""Addresses and standard input of ``fsaf predict``, from a server on this machine."""

import contextlib
import io
import json
import socket
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path, PurePath
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from annotation.videos import write_frames
from fsaf.annotation import addresses
from fsaf.annotation.annotate import Output, annotate
from fsaf.annotation.sources import find_sources
from fsaf.annotation.video import VideoReader
from fsaf.cli.detectors import looks_like_pictures
from fsaf.detection.detector import Detector
from fsaf.errors import UserError
from synthetic import Picture, paint
from web import serving


def scene(index: int) -> np.ndarray:
    return paint(Picture(height=64, width=96, objects=[(4 * index, 20, 24, 16, 7)]))


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, quality=95)
    return file.getvalue()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serve a picture, a video with and without a suffix, and the pictures of a network camera."""
    film = write_frames(tmp_path / "film.mkv", map(scene, range(5)), ("ffv1", "bgr0"), rate=10).read_bytes()
    parts = (encoded(scene(index), "JPEG") for index in range(5))
    camera = b"".join(
        b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(part), part)
        for part in parts
    )
    answers = {
        "/a%20b.png": ("image/png", encoded(scene(1), "PNG")),
        "/picture?id=3": ("image/png", encoded(scene(2), "PNG")),
        "/film.mkv": ("video/x-matroska", film),
        "/film": ("video/x-matroska", film),
        "/camera": ("multipart/x-mixed-replace; boundary=part", camera),
    }

    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.path not in answers:
            request.send_error(404)
            return
        kind, content = answers[request.path]
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        with contextlib.suppress(OSError):  # the reader has seen enough
            request.wfile.write(content if request.command == "GET" else b"")

    with serving(answer) as address:
        yield address


def test_pictures_and_videos_of_a_server(
    sees: Detector, tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("a%20b.png", "picture?id=3", "film.mkv", "film", "camera")
    sources, _ = find_sources([f"{server}/{name}" for name in names])
    assert [source.place for source in sources] == [
        PurePath(name) for name in ("a_b", "picture", "film", "film", "camera")
    ]
    assert annotate(sees, sources, Output(folder=tmp_path / "out", json=True)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [(PurePath(line["image"]).name, line.get("frame")) for line in lines]
    films = [(name, frame) for name in names[2:] for frame in range(5)]
    assert found == [("a%20b.png", None), ("picture?id=3", None), *films]
    for line, index in zip(lines, [1, 2, *range(5), *range(5)], strict=False):  # JPEG changes the colours
        box = [4 * index, 20, 4 * index + 24, 36]
        assert line["detections"][0]["box"] == pytest.approx(box, abs=2e-3)


def test_what_a_server_has_not(
    sees: Detector, tmp_path: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{server}/gone.jpg", f"{server}/gone", f"{server}/gone.mp4", f"{server}/film"]
    sources, _ = find_sources(names)
    assert annotate(sees, sources, Output(folder=tmp_path, json=True)) == 3
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 5
    for name, line in zip(names, err.splitlines(), strict=False):
        assert line.startswith(f"fsaf predict: {name}: ") and "404" in line
    with pytest.raises(UserError, match="ftp is not supported; http, https, rtsp"):
        find_sources(["ftp://127.0.0.1/a.png"])


def test_cameras_on_the_network_have_no_end() -> None:
    (source,), _ = find_sources(["rtsp://user:secret@127.0.0.1:1/stream1"])
    assert source.video and source.camera and source.place == PurePath("stream1")
    told = r"^rtsp://user:\*\*\*@127.0.0.1:1/: does not open as a video \([^)]*\)$"
    with pytest.raises(UserError, match=told):
        VideoReader("rtsp://user:secret@127.0.0.1:1/")


def test_a_camera_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(
            UserError, match=rf"^{url}: does not open as a video \(no answer in 0.5 seconds\)$"
        ):
            VideoReader(url)
    with pytest.raises(UserError, match=r"the host no-such-host.invalid is not known"):
        VideoReader("rtsp://user:secret@no-such-host.invalid:554/")


@pytest.mark.parametrize("scheme", ["rtsp", "https"])
def test_what_is_no_address(scheme: str) -> None:
    with pytest.raises(UserError, match=rf"^{scheme}://user:\*\*\*@host/1: is no address .*%5B and %5D$"):
        find_sources([f"{scheme}://user:a[b@host/1"])


def test_a_picture_on_standard_input(
    sees: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources, _ = find_sources(["-"])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(encoded(scene(1), "PNG"))))
    assert annotate(sees, sources, Output(folder=tmp_path)) == 0
    assert Image.open(tmp_path / "stdin.png").size == (96, 64)
    assert capsys.readouterr().out == f"- -> {tmp_path / 'stdin.png'}: 1 red\n"
    for content in (b"", b"text"):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        with pytest.raises(UserError, match="standard input: does not decode as an image"):
            annotate(sees, sources, Output(folder=tmp_path))


def test_a_command_without_a_checkpoint_knows_them() -> None:
    for word in ("-", "rtsp://camera/1", "https://host/picture"):
        assert looks_like_pictures(word)
    assert not looks_like_pictures("hf:user/name")
