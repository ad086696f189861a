"""Videos written with PyAV alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np


def write_frames(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: tuple[str, str],
    rate: int,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
) -> Path:
    """Write (64, 96, 3) uint8 frames.

    codec: name and pixel format. options: of the container.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec[0], rate=rate, options=codec_options or {})
        stream.height, stream.width, stream.pix_fmt = 64, 96, codec[1]
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
