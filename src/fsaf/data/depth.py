"""Pixels of more than 8 bits, and floats, as 8 bits: one rule for training and prediction.

The brightness that becomes white comes from the 99.9th percentile of the values, not from their maximum, so
that a few hot pixels do not darken a picture:

- integers: the percentile is white, as viewers stretch 16-bit pictures.
- floats: 1 is white if the percentile is at most 1, 255 is white if it is at most 255; else the percentile.

Values below 0 become black, values above white stay white.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

PERCENT = 99.9
"""The percentile."""
SAMPLE = 1_000_000
"""Values, evenly spaced, that the percentile is computed from at most."""
STRIP = 1_000_000
"""Pixels that are converted at a time: float64 takes eight times the memory of 8 bits."""


def white_of(values: Sequence[np.ndarray], integers: bool) -> float:
    """Return the value that becomes white. values: parts of one picture, finite; integers: their type."""
    step = max(1, sum(part.size for part in values) // SAMPLE)
    sample = np.concatenate([part.reshape(-1)[::step] for part in values])
    percentile = float(np.percentile(sample, PERCENT, method="nearest"))
    if integers:
        return percentile if percentile > 0 else max(1.0, float(sample.max()))
    return 1.0 if percentile <= 1 else max(255.0, percentile)


def scale(values: np.ndarray, white: float) -> np.ndarray:
    """Return finite values of any shape as uint8."""
    return np.rint(values.clip(0, white) * (255 / white)).astype(np.uint8)


def array_to_8bit(values: np.ndarray) -> np.ndarray:
    """Return an array of uint16 or finite floats, of any shape, as uint8."""
    white = white_of([values], integers=values.dtype.kind in "ui")
    flat, out = values.reshape(-1), np.empty(values.size, np.uint8)
    for start in range(0, values.size, STRIP):
        out[start : start + STRIP] = scale(flat[start : start + STRIP].astype(np.float64), white)
    return out.reshape(values.shape)


def image_to_8bit(image: Image.Image) -> np.ndarray:
    """Return a 16-bit, 32-bit or float grey picture as (H, W) uint8. Floats that are not finite become 0."""
    image.load()
    height = max(1, STRIP // image.width)
    strips = [
        (0, top, image.width, min(top + height, image.height)) for top in range(0, image.height, height)
    ]
    step = max(1, image.width * image.height // SAMPLE)
    sample = [_finite(image, strip).reshape(-1)[::step].copy() for strip in strips]
    white = white_of(sample, integers=image.mode != "F")
    grey = np.empty((image.height, image.width), np.uint8)
    for strip in strips:
        grey[strip[1] : strip[3]] = scale(_finite(image, strip), white)
    return grey


def _finite(image: Image.Image, strip: tuple[int, int, int, int]) -> np.ndarray:
    values = np.asarray(image.crop(strip), np.float64)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
