"""Video files frame by frame: times, sizes, rotation, damage, and whole output files."""

import math
import re
import struct
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from annotation.videos import write_frames
from fsaf.annotation import video_writer
from fsaf.annotation.video import VideoReader, camera_number, is_video
from fsaf.annotation.video_writer import write_video
from fsaf.errors import UserError


def picture(index: int, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    """Return a grey picture with a red patch at the left top, and a bright bar that moves with ``index``."""
    pixels = np.full((*size, 3), 60, np.uint8)
    pixels[:16, :32] = 220, 40, 30
    pixels[32:48, 4 * index : 4 * index + 8] = 250
    return pixels


def record(path: Path, count: int, **options: str) -> Path:
    """Record ``picture`` at 25 frames per second."""
    frames = map(picture, range(count))
    return write_frames(path, frames, ("libx264", "yuv420p"), 25, options, {"g": "4"})


def write(path: Path, size: tuple[int, int], rate: Fraction, unit: Fraction, ticks: list[int]) -> None:
    with write_video(path, size, rate, unit, None) as writer:
        for index, tick in enumerate(ticks):
            writer.write(picture(index, size), tick)


@pytest.mark.parametrize("encoders", [("libx264", "mpeg4"), ("mpeg4",)])
@pytest.mark.parametrize(
    ("rate", "unit"),
    [
        (Fraction(25), Fraction(1, 25)),
        (Fraction(30000, 1001), Fraction(1, 90000)),
        (Fraction(24000, 1001), Fraction(1001, 24000)),
    ],
)
def test_what_is_written_is_read(
    tmp_path: Path,
    rate: Fraction,
    unit: Fraction,
    encoders: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(video_writer, "ENCODERS", encoders)
    path = tmp_path / "new" / "a.mp4"
    write(path, (63, 95), rate, unit, [round(i / rate / unit) for i in range(12)])
    with VideoReader(str(path)) as reader:
        frames = list(reader.frames())
        assert (reader.rate, reader.total, reader.faults) == (rate, 12, [])
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.time for frame in frames] == pytest.approx([float(i / rate) for i in range(12)], abs=1e-4)
    for index in (0, 5, 11):
        image = frames[index].image
        assert image.shape == (64, 96, 3) and image.dtype == np.uint8
        difference = np.abs(image[:63, :95].astype(int) - picture(index, (63, 95)))
        assert difference.mean() < 4  # of 255, with colours right: H.264 blurs them at edges
    assert [entry.name for entry in path.parent.iterdir()] == ["a.mp4"]


def test_uneven_times_are_kept(tmp_path: Path) -> None:
    ticks = [0, 100, 130, 500, 501]
    write(tmp_path / "a.mp4", (64, 96), Fraction(10), Fraction(1, 1000), ticks)
    with VideoReader(str(tmp_path / "a.mp4")) as reader:
        assert [round(frame.time * 1000) for frame in reader.frames()] == ticks


def turn(path: Path, degrees: float) -> None:
    """Make players rotate an MP4 clockwise.

    The matrix in the track header (ISO 14496-12) maps (x, y) to (ax + cy, bx + dy), with y downwards.
    """
    cos, sin = (round(f(math.radians(degrees)) * 65536) for f in (math.cos, math.sin))
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    data[matrix : matrix + 36] = struct.pack(">9i", cos, sin, 0, -sin, cos, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize(("degrees", "corner"), [(0, (0, 0)), (90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_frames_are_turned_upright(tmp_path: Path, degrees: int, corner: tuple[int, int]) -> None:
    path = record(tmp_path / "a.mp4", 3)
    turn(path, degrees)
    with VideoReader(str(path)) as reader:
        image = next(reader.frames()).image
    assert image.shape[:2] == ((64, 96) if degrees % 180 == 0 else (96, 64))
    for at in ((0, 0), (0, -1), (-1, -1), (-1, 0)):
        assert (int(image[at][0]) - int(image[at][1]) > 100) == (at == corner)


def test_other_rotation_is_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "a.mp4", 3)
    turn(path, 45)
    with VideoReader(str(path)) as reader, pytest.raises(UserError, match=r"a\.mp4.*-4[45] degrees"):
        next(reader.frames())


Damage = Callable[[bytes], bytes]


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("a.mp4", lambda data: data[: len(data) * 6 // 10], "damaged"),
        ("a.avi", lambda data: data[: len(data) * 6 // 10], "damaged"),
        ("a.mkv", lambda data: data[: len(data) * 6 // 10], r"ends after [\d.]+ of 4\.0 seconds"),
        ("a.mp4", lambda data: data[: len(data) // 2] + bytes(900) + data[len(data) // 2 + 900 :], "damaged"),
    ],
)
def test_of_a_damaged_video_what_decodes_is_kept(
    tmp_path: Path, name: str, damage: Damage, told: str
) -> None:
    path = record(tmp_path / name, 100, **({"movflags": "faststart"} if name == "a.mp4" else {}))
    with VideoReader(str(path)) as reader:
        assert len(list(reader.frames())) == 100 and reader.faults == []
    path.write_bytes(damage(path.read_bytes()))
    with VideoReader(str(path)) as reader:
        frames = list(reader.frames())
        assert 20 < len(frames) <= 100 and len(reader.faults) > 0
    assert re.search(told, ", ".join(reader.faults))
    # Each frame keeps its time. Next to the damage the decoder fills in.
    off = [np.abs(frame.image.astype(int) - picture(round(frame.time * 25))).mean() for frame in frames]
    assert sum(difference > 2 for difference in off) <= 5


def test_what_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = record(tmp_path / "cut.mp4", 30)  # an MP4's table of contents is at its end
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "text.mp4").write_text("no video at all")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    for name, told in (
        ("cut.mp4", "is it complete"),
        ("text.mp4", "does not open as a video"),
        ("none.mp4", "No such file"),
        ("sound.mp4", "no video stream"),
    ):
        with pytest.raises(UserError, match=rf"{name}: .*{told}"):
            VideoReader(str(tmp_path / name))
    whole = str(record(tmp_path / "whole.mp4", 3))
    with pytest.raises(UserError, match=r"whole\.mp4: 96 x 64 is more than data\.max_pixels"):
        VideoReader(whole, max_pixels=6000)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"pip install 'fsaf\[video\]'"):
        VideoReader(whole)


def test_cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("camera:0", "camera:12", "/dev/video3", "camera", "camera:x", "a/dev/video3", "camera:1.mp4")
    assert [camera_number(name) for name in names] == [0, 12, 3, None, None, None, None]
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(UserError, match=r"camera:97: no camera opens as /dev/video97 .*ls /dev/video"):
        VideoReader("camera:97")
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UserError, match=r"camera:97: .*on Linux only"):
        VideoReader("camera:97")


def test_videos_are_told_by_content(tmp_path: Path) -> None:
    record(tmp_path / "a.mp4", 3).rename(tmp_path / "clip")
    (tmp_path / "text.txt").write_text("no video")
    (tmp_path / "broken").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert is_video(tmp_path / "clip")
    assert not is_video(tmp_path / "text.txt") and not is_video(tmp_path / "broken")
    assert not is_video(tmp_path)


@pytest.mark.parametrize("name", ["12:30.mp4", "concat:b.mp4", "50%03d [1] é.mp4"])
def test_names_are_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """FFmpeg would read the part before a colon as a protocol."""
    monkeypatch.chdir(tmp_path)
    write(Path("b.mp4"), (64, 96), Fraction(25), Fraction(1, 25), [0, 1, 2])
    write(Path(name), (64, 96), Fraction(25), Fraction(1, 25), [0, 1])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["b.mp4", name])
    assert is_video(Path(name))
    with VideoReader(name) as reader:
        assert len(list(reader.frames())) == 2


def test_a_video_that_cannot_be_ended_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").mkdir()
    with pytest.raises(UserError, match=r"a\.mp4: cannot be written \(Is a directory"):
        write(tmp_path / "a.mp4", (64, 96), Fraction(25), Fraction(1, 25), [0, 1])
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]

    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))  # FFmpeg writes such a short video only at its end
    try:
        with pytest.raises(UserError, match=r"b\.mp4: cannot be written \(File too large"):
            write(tmp_path / "b.mp4", (64, 96), Fraction(25), Fraction(1, 25), [0, 1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


def test_a_video_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("mine")
    with (
        pytest.raises(ZeroDivisionError),
        write_video(tmp_path / "a.mp4", (64, 96), Fraction(25), Fraction(1, 25), None) as writer,
    ):
        writer.write(picture(0), 0)
        raise ZeroDivisionError
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_text() == "mine"
    with (
        pytest.raises(UserError, match=r"b\.mp4: cannot be written"),
        write_video(tmp_path / "a.mp4" / "b.mp4", (64, 96), Fraction(25), Fraction(1, 25), None),
    ):
        pass
