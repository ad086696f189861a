"""Cameras on the network, from GStreamer's RTSP server on this machine."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from annotation.test_streams import scene
from annotation.videos import write_frames
from fsaf.annotation import addresses
from fsaf.annotation.annotate import Output, annotate
from fsaf.annotation.sources import find_sources
from fsaf.annotation.video import Frame, VideoReader
from fsaf.detection.detector import Detector
from fsaf.errors import UserError

NEEDED = "needs GStreamer's RTSP server (on Debian: apt install python3-gi gir1.2-gst-rtsp-server-1.0 "
NEEDED += "gstreamer1.0-plugins-good gstreamer1.0-plugins-bad)"

SERVER = """
import sys, gi
gi.require_version("Gst", "1.0"), gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service="0")
for place, pipeline in (
    ("/clip.mkv", f"filesrc location={sys.argv[1]} ! matroskademux ! h264parse ! rtph264pay name=pay0"),
    ("/live", f"videotestsrc is-live=1 ! {sys.argv[2]} ! jpegenc ! rtpjpegpay name=pay0"),
):
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {pipeline} )")
    server.get_mount_points().add_factory(place, factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


LIVE = "video/x-raw,format=I420,width=96,height=64,framerate=20/1"


class Server:
    """A process that serves ``/clip.mkv``, 30 frames of 1.5 seconds, and the endless ``/live``."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process, self.url = process, f"rtsp://127.0.0.1:{port}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    codec, lossless = ("libx264rgb", "rgb24"), {"crf": "0"}
    clip = write_frames(tmp_path / "clip.mkv", map(scene, range(30)), codec, 20, codec_options=lossless)
    for python in ("/usr/bin/python3", sys.executable):  # Debian installs it for its own Python
        try:
            process = subprocess.Popen(
                [python, "-c", SERVER, str(clip), LIVE], stdout=-1, stderr=-3, text=True
            )
        except OSError:
            continue
        with process:
            try:
                port = process.stdout.readline() if process.stdout else ""
                if port.strip():
                    yield Server(process, int(port))
                    return
            finally:
                process.kill()
    pytest.skip(NEEDED)


def after_frames(monkeypatch: pytest.MonkeyPatch, count: int, act: Callable[[], object]) -> None:
    """Let ``act`` be called when that many frames of a stream have come."""
    frames = VideoReader.frames

    def watched(self: VideoReader) -> Iterator[Frame]:
        for frame in frames(self):
            if frame.index == count - 1 and addresses.scheme_of(self.name):
                act()
            yield frame

    monkeypatch.setattr(VideoReader, "frames", watched)


def test_a_stream_to_its_end(
    sees: Detector,
    server: Server,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sources, _ = find_sources([f"{server.url}/clip.mkv"])
    assert annotate(sees, sources, Output(folder=tmp_path / "out", json=True)) == 0
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["frame"] for line in lines] == list(range(30)) and "fsaf predict:" not in err
    for line in lines[:18]:  # later the rectangle leaves the picture
        x = 4 * line["frame"]
        assert line["detections"][0]["box"] == pytest.approx([x, 20, x + 24, 36], abs=2)
        assert line["time"] == pytest.approx(line["frame"] / 20, abs=0.01)


def test_a_server_that_dies(
    sees: Detector,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    after_frames(monkeypatch, 20, server.process.kill)
    sources, _ = find_sources([f"{server.url}/live"])
    assert annotate(sees, sources, Output(folder=tmp_path / "out")) == 1
    (told,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fsaf predict:")]
    target = tmp_path / "out" / "live.mp4"
    with VideoReader(str(target)) as reader:
        kept = len(list(reader.frames()))
    assert kept >= 20
    end = f"the {kept} frames that decode are in {target}"
    assert told == f"fsaf predict: {server.url}/live: ends, or its server has gone; {end}"


def test_a_server_that_falls_silent(
    sees: Detector,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    after_frames(monkeypatch, 20, lambda: server.process.send_signal(signal.SIGSTOP))
    monkeypatch.setattr(addresses, "TIMEOUT", 4.0)
    sources, _ = find_sources([f"{server.url}/live"])
    assert annotate(sees, sources, Output(folder=tmp_path / "out", json=True)) == 1
    out, err = capsys.readouterr()
    kept = len(out.splitlines())
    assert kept >= 20
    assert f"/live: no answer in 4 seconds; the {kept} frames that decode are above\n" in err


def test_ctrl_c_ends_a_stream_properly(
    sees: Detector,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    after_frames(monkeypatch, 20, lambda: signal.raise_signal(signal.SIGINT))
    sources, _ = find_sources([f"{server.url}/live"])
    assert annotate(sees, sources, Output(folder=tmp_path)) == 0
    assert "fsaf predict:" not in capsys.readouterr().err
    with VideoReader(str(tmp_path / "live.mp4")) as reader:
        assert 20 <= len(list(reader.frames())) <= 22


def test_a_place_that_the_server_has_not(server: Server) -> None:
    with pytest.raises(UserError, match=r"/none: does not open as a video \(.*404 Not Found\)$"):
        VideoReader(f"{server.url}/none")
