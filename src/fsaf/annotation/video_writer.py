"""Write MP4 files frame by frame, with PyAV (FFmpeg); memory does not grow with their length."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fsaf.annotation.video import ffmpeg_url
from fsaf.files import whole, write_error

ENCODERS = ("libx264", "mpeg4")
"""The first that this FFmpeg has is used."""
BT709 = 1
"""FFmpeg's number of the colours of high-definition video."""


@contextlib.contextmanager
def write_video(
    path: Path, size: tuple[int, int], rate: Fraction, time_base: Fraction, aspect: Fraction | None
) -> Iterator["VideoWriter"]:
    """Yield a writer of an MP4 file, which appears at ``path`` when the block ends; if it raises, none does.

    size: (height, width) in pixels; odd sides are padded with a copy of their last row or column, because
    H.264 needs even ones. rate: frames per second. time_base: unit of ticks, in seconds.
    Raises WriteError if the file cannot be written.
    """
    with whole(path) as draft:
        writer = VideoWriter(path, draft, size, rate, time_base, aspect)
        try:
            yield writer
            writer.finish()
        finally:
            writer.close()


class VideoWriter:
    """Writer of an MP4 file; made by ``write_video``."""

    def __init__(
        self,
        path: Path,
        draft: Path,
        size: tuple[int, int],
        rate: Fraction,
        time_base: Fraction,
        aspect: Fraction | None,
    ) -> None:
        import av

        self.path = path
        self._odd = (size[0] % 2, size[1] % 2)
        encoder = next(name for name in ENCODERS if name in av.codecs_available)
        with self._naming():
            self._container = av.open(ffmpeg_url(draft), "w", format="mp4")
        options = {"crf": "20", "preset": "veryfast"} if encoder == "libx264" else {"qscale": "3"}
        stream: Any = self._container.add_stream(encoder, rate=rate, options=options)
        stream.height, stream.width = size[0] + self._odd[0], size[1] + self._odd[1]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        # MPEG-4 has no finer units.
        self._unit = time_base if encoder == "libx264" else max(time_base, Fraction(1, 60_000))
        context.time_base = self._unit
        context.colorspace = context.color_primaries = context.color_trc = BT709
        if aspect and aspect != 1:
            context.sample_aspect_ratio = aspect
        self._stream, self._time_base, self._last = stream, time_base, -1

    def write(self, image: np.ndarray, ticks: int) -> None:
        """Add a picture (H, W, 3) uint8 RGB that is shown from ``ticks`` on, later than the one before."""
        import av

        padded = np.pad(image, ((0, self._odd[0]), (0, self._odd[1]), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        self._last = max(round(ticks * self._time_base / self._unit), self._last + 1)
        frame.pts, frame.time_base = self._last, self._unit
        with self._naming():
            self._mux(frame)

    def finish(self) -> None:
        """Write the end of the file."""
        with self._naming():
            self._mux(None)
            self._container.close()

    def close(self) -> None:
        """Close the file, finished or not."""
        with contextlib.suppress(Exception):
            self._container.close()

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Turn an error of the file or of FFmpeg into a WriteError."""
        import av

        try:
            yield
        except (OSError, av.error.FFmpegError) as error:
            raise write_error(self.path, error) from error
