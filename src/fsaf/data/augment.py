"""How training images are changed, drawn from a seed; their boxes go with them.

Sizes are (height, width). Batch shapes stay as they are: an image that is scaled up is cut to its shape, one
that is scaled down is padded to it.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from fsaf.boxes import area, mirror_boxes
from fsaf.config import DataConfig

MIN_VISIBLE = 0.25
"""A box of which a cut leaves less than this share is neither object nor background, as a crowd region."""


class Region(NamedTuple):
    """Part of a picture, in its pixels."""

    top: int
    left: int
    height: int
    width: int


class Color(NamedTuple):
    """Factors of brightness, contrast and saturation, and a turn of the hue (1 is a full circle)."""

    brightness: float
    contrast: float
    saturation: float
    hue: float


class Change(NamedTuple):
    """One image's augmentation."""

    region: Region
    """What of the file is taken..."""
    size: tuple[int, int]
    """...and the size it is resized to, within the batch shape."""
    mirror: tuple[bool, bool] = (False, False)
    """Left to right, upside down."""
    color: Color | None = None


def unchanged(original: tuple[int, int], size: tuple[int, int]) -> Change:
    """All of an image of size ``original``, resized to ``size``."""
    return Change(Region(0, 0, *original), size)


def draw_change(
    rng: np.random.Generator,
    original: tuple[int, int],
    size: tuple[int, int],
    shape: tuple[int, int] | None,
    data: DataConfig,
) -> Change:
    """Draw what ``data`` asks for.

    original: size of the file. size: what it is resized to without augmentation. shape: its batch shape; an
    image without one is cut to ``size``.
    """
    mirror = bool(rng.random() < data.flip), bool(rng.random() < data.flip_vertical)
    change = unchanged(original, size)
    if data.scale != (1, 1):
        change = _draw_scale(rng, original, size, shape or size, data.scale)
    color = None
    if data.color:
        strength = np.array([1, 1, 1, 0.1]) * data.color
        color = Color(*(np.array([1, 1, 1, 0]) + rng.uniform(-strength, strength)).tolist())
    return change._replace(mirror=mirror, color=color)


def _draw_scale(
    rng: np.random.Generator,
    original: tuple[int, int],
    size: tuple[int, int],
    limit: tuple[int, int],
    scale: tuple[float, float],
) -> Change:
    factor = rng.uniform(*scale)
    scaled = [max(1, round(side * factor)) for side in size]
    cut = [min(*sides) for sides in zip(scaled, limit, strict=True)]
    part = [
        min(whole, max(1, round(whole * inside / all_)))
        for whole, inside, all_ in zip(original, cut, scaled, strict=True)
    ]
    corner = [int(rng.integers(whole - taken + 1)) for whole, taken in zip(original, part, strict=True)]
    return Change(Region(corner[0], corner[1], part[0], part[1]), (cut[0], cut[1]))


def change_boxes(
    boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray, original: tuple[int, int], change: Change
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4) xyxy in pixels of a file of size ``original``, their labels and whether each is a crowd
    region, as they are in the changed image: (m, 4) float32 in its pixels.

    A cut leaves of a box what is inside; of one that is hardly seen then a crowd region (``MIN_VISIBLE``), of
    one outside nothing. Where all of the image is taken, all n boxes stay.
    """
    region, size = change.region, change.size
    scale = np.array([size[1] / region.width, size[0] / region.height] * 2, np.float32)
    if (region.height, region.width) == original:
        boxes = boxes * scale
    else:
        moved = (boxes - np.array([region.left, region.top] * 2, np.float32)) * scale
        boxes = np.clip(moved, 0, np.array([size[1], size[0]] * 2, np.float32))
        visible = area(boxes.T) / np.maximum(area(moved.T), np.float32(1e-9))
        keep = visible > 0
        boxes, labels, crowd = boxes[keep], labels[keep], (crowd | (visible < MIN_VISIBLE))[keep]
    return mirror_boxes(boxes, size, *change.mirror).astype(np.float32), labels, crowd


def change_color(image: Tensor, color: Color) -> Tensor:
    """(3, H, W) uint8 RGB with other colours."""
    from torchvision.transforms.v2 import functional as F  # here, since importing it takes a second

    image = F.adjust_brightness(image, color.brightness)
    image = F.adjust_contrast(image, color.contrast)
    image = F.adjust_saturation(image, color.saturation)
    return F.adjust_hue(image, color.hue)
