"""Read videos and cameras frame by frame, with PyAV (FFmpeg); memory does not grow with their length."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fsaf.annotation.addresses import STREAMS, no_answer, open_address, scheme_of, without_password
from fsaf.data.decode import MAX_PIXELS, check_pixels
from fsaf.errors import DataError, UserError
from fsaf.text import counted, printable

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".3gp"}
)
"""Suffixes of videos, in lower case."""

_CAMERA = re.compile(r"camera:(\d+)|/dev/video(\d+)")


@dataclass(kw_only=True)
class Frame:
    """One picture of a video."""

    index: int
    """From 0."""
    ticks: int
    """Display time after the first frame, in units of the video's ``time_base``."""
    time: float
    """The same in seconds."""
    image: np.ndarray
    """(H, W, 3) uint8 RGB, upright."""


def camera_number(name: str) -> int | None:
    """Return the N of ``camera:N`` and ``/dev/videoN``, or None for any other name."""
    match = _CAMERA.fullmatch(name)
    return int(match[1] or match[2]) if match else None


def is_video(path: Path) -> bool:
    """Return True if PyAV is installed and finds moving pictures in a file."""
    try:
        import av

        with av.open(ffmpeg_url(path)) as container:
            # FFmpeg opens text files as ANSI art, and damaged pictures as short films.
            still = container.format.name in ("tty", "image2") or container.format.name.endswith("_pipe")
            return bool(container.streams.video) and not still
    except Exception:  # not installed, or any error of FFmpeg on a file of another kind
        return False


class VideoReader:
    """Context manager that reads the frames of a video file or camera, rotated as the file asks.

    Raises DataError naming the source if it cannot be opened, has no video stream, or has frames of more
    than ``max_pixels``. Damage found later is listed in ``faults``; every frame that decodes is returned.
    """

    def __init__(self, name: str, max_pixels: int = MAX_PIXELS) -> None:
        self.name, self.max_pixels = without_password(name), max_pixels
        self.faults: list[str] = []
        self._bad = 0  # packets and frames that are damaged
        self._container = _open(name)
        try:
            if not self._container.streams.video:
                raise DataError(f"{self.name}: has no video stream")
            self._stream = self._container.streams.video[0]
            width, height = self._stream.codec_context.width, self._stream.codec_context.height
            check_pixels(width, height, max_pixels, self.name)
        except BaseException:
            self._container.close()
            raise
        self._stream.thread_type = "AUTO"
        self.time_base: Fraction = self._stream.time_base
        self.rate: Fraction = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self.aspect: Fraction | None = self._stream.sample_aspect_ratio
        """Width of a pixel divided by its height, as shown upright; None if unknown."""

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    @property
    def total(self) -> int | None:
        """Return the number of frames, by the header or the length of the file; None if neither is known."""
        seconds = self._seconds()
        return self._stream.frames or (seconds and round(seconds * self.rate)) or None

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in display order."""
        first = last = 0
        size: tuple[int, ...] | None = None
        index = 0
        for picture in self._decode():
            image = self._upright(picture)
            if size is None:
                first = last = self._shown_at(picture) or 0
                size = image.shape
                check_pixels(size[1], size[0], self.max_pixels, self.name)
                if self.aspect and round(picture.rotation / 90) % 2:
                    self.aspect = 1 / self.aspect
            elif image.shape != size:
                self.faults.append(
                    f"changes from {size[1]} x {size[0]} to {image.shape[1]} x {image.shape[0]} pixels after "
                    f"frame {index - 1}; later frames are left out"
                )
                return
            else:
                # A container may lack times, or repeat one.
                step = max(1, round(1 / (self.rate * self.time_base)))
                shown = self._shown_at(picture)
                last = last + step if shown is None else max(shown, last + 1)
            ticks = last - first
            yield Frame(index=index, ticks=ticks, time=float(ticks * self.time_base), image=image)
            index += 1
        if size is None:
            raise DataError(f"{self.name}: no frame can be decoded")
        self._judge(index, float((last - first) * self.time_base + 1 / self.rate))

    def _decode(self) -> Iterator[Any]:
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.error.ExitError:  # PyAV's timeout
                self.faults.append(no_answer())
                return
            except av.error.FFmpegError as error:
                self.faults.append(f"cannot be read further ({printable(error.strerror)})")
                return
            self._bad += packet.is_corrupt
            try:
                for frame in packet.decode():
                    self._bad += frame.is_corrupt
                    yield frame
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                self._bad += 1

    def _shown_at(self, frame: Any) -> int | None:
        # AVI stores decoding times only; display times that FFmpeg derives from them are out of order.
        return frame.dts if self._container.format.name == "avi" else frame.pts

    def _upright(self, frame: Any) -> np.ndarray:
        turns = round(frame.rotation / 90)
        if abs(frame.rotation - 90 * turns) > 1:  # FFmpeg cuts off fractions
            raise DataError(
                f"{self.name}: is rotated by {frame.rotation} degrees; only multiples of 90 are supported"
            )
        image = frame.to_ndarray(format="rgb24")
        return np.ascontiguousarray(np.rot90(image, turns)) if turns else image

    def _seconds(self) -> float | None:
        """Return the length in the header; of a file with sound, the length of its pictures only."""
        if self._stream.duration:
            return float(self._stream.duration * self.time_base)
        if self._container.duration and len(self._container.streams) == 1:
            return self._container.duration / 1_000_000
        return None

    def _judge(self, count: int, seconds: float) -> None:
        """Note missing or damaged parts, once the file has been read to its end."""
        if scheme_of(self.name) in STREAMS and not self._container.duration and not self.faults:
            self.faults.append("ends, or its server has gone")  # FFmpeg does not tell which
        if self._bad:
            self.faults.append(f"is damaged in {counted(self._bad, 'place')}")
        claimed = self._seconds()
        if claimed and claimed - seconds > max(1.0, 0.02 * claimed):
            self.faults.append(f"ends after {seconds:.1f} of {claimed:.1f} seconds")


def ffmpeg_url(path: Path | str) -> str:
    """Return a path for FFmpeg, which would take ``12:30.mp4`` for the protocol ``12``."""
    return f"file:{path}"


def _open(name: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise UserError(f"{name}: videos need the package av: pip install 'fsaf[video]'") from error
    camera = camera_number(name)
    if camera is None and scheme_of(name):
        return open_address(name)
    if camera is None:
        try:
            return av.open(ffmpeg_url(name))
        except av.error.FFmpegError as error:
            raise DataError(
                f"{name}: does not open as a video ({printable(error.strerror)}); is it complete?"
            ) from error
    if not sys.platform.startswith("linux"):
        raise DataError(f"{name}: cameras can be read on Linux only; give a video file")
    try:
        return av.open(f"/dev/video{camera}", format="v4l2")
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{name}: no camera opens as /dev/video{camera} ({printable(reason)}); "
            "`ls /dev/video*` lists the cameras"
        ) from error
