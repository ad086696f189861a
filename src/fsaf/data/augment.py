"""Resize an image for its batch with a random flip, scale and colour, and move its boxes along.

``draw_change`` draws, ``crop`` and ``finish`` change pixels, ``change_boxes`` changes boxes. Sizes are
(height, width). Batch shapes do not change: an enlarged image is cropped to its batch shape, a shrunk one is
padded to it. The other augmentations, ``data.augment``, are in ``distort.py``.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fsaf.boxes import area, mirror_boxes
from fsaf.config import DataConfig

if TYPE_CHECKING:
    from torch import Tensor

MIN_VISIBLE = 0.25
"""A box becomes an ignore (crowd) region if cropping leaves less than this share of its area."""


class Region(NamedTuple):
    """Part of an image, in its pixels."""

    top: int
    left: int
    height: int
    width: int


class Color(NamedTuple):
    """Factors of brightness, contrast and saturation, and a shift of the hue (1 is the full circle)."""

    brightness: float
    contrast: float
    saturation: float
    hue: float


class Change(NamedTuple):
    """The changes of one image."""

    region: Region
    """Part of the image that is used."""
    size: tuple[int, int]
    """Size that the region is resized to, at most the batch shape."""
    mirror: tuple[bool, bool] = (False, False)
    """Flip horizontally, flip vertically."""
    color: Color | None = None


def unchanged(original: tuple[int, int], size: tuple[int, int]) -> Change:
    """Return the change that only resizes an image of size ``original`` to ``size``."""
    return Change(Region(0, 0, *original), size)


def draw_change(
    rng: np.random.Generator,
    original: tuple[int, int],
    size: tuple[int, int],
    shape: tuple[int, int] | None,
    data: DataConfig,
) -> Change:
    """Draw the change of one image, as ``data`` configures it.

    original: size of the image file. size: size after resizing without augmentation. shape: batch shape; an
    image without one is cropped to ``size``.
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
    """Return the boxes (m, 4) float32 in pixels of the changed image, with their labels and crowd flags.

    boxes: (n, 4) xyxy in pixels of the image file, of size ``original``. labels, crowd: (n,). Boxes are
    clipped to the crop, marked crowd if less than ``MIN_VISIBLE`` of the area remains, dropped if nothing
    does. Without a crop all n boxes stay.
    """
    region, size = change.region, change.size
    scale = np.array([size[1] / region.width, size[0] / region.height] * 2, np.float32)
    if (region.height, region.width) == original:
        boxes = boxes * scale
    else:
        moved = (boxes - np.array([region.left, region.top] * 2, np.float32)) * scale
        boxes, labels, crowd = clip(moved, labels, crowd, size)
    return mirror_boxes(boxes, size, *change.mirror).astype(np.float32), labels, crowd


def clip(
    boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clip boxes (n, 4) float32 to an image of ``size``; return them with their labels and crowd flags.

    Boxes become crowd if less than ``MIN_VISIBLE`` of the area remains, and are dropped if nothing does.
    """
    clipped = np.clip(boxes, 0, np.array([size[1], size[0]] * 2, np.float32))
    visible = area(clipped.T) / np.maximum(area(boxes.T), np.float32(1e-9))
    keep = visible > 0
    return clipped[keep], labels[keep], (crowd | (visible < MIN_VISIBLE))[keep]


def crop(image: "Tensor", change: Change) -> "Tensor":
    """Return the region of image (3, H, W) that ``change`` uses, as a view."""
    top, left, height, width = change.region
    return image[:, top : top + height, left : left + width]


def finish(image: "Tensor", change: Change) -> None:
    """Flip and recolour image (3, h, w) uint8 in place; it is cropped and resized already."""
    if any(change.mirror):
        axes = [axis for axis, mirrored in zip((2, 1), change.mirror, strict=True) if mirrored]
        image.copy_(image.flip(axes))
    if change.color:
        image.copy_(change_color(image, change.color))


def change_color(image: "Tensor", color: Color) -> "Tensor":
    """Return image (3, H, W) uint8 RGB with its colours changed."""
    from torchvision.transforms.v2 import functional as F  # here, since importing it takes a second

    image = F.adjust_brightness(image, color.brightness)
    image = F.adjust_contrast(image, color.contrast)
    image = F.adjust_saturation(image, color.saturation)
    return F.adjust_hue(image, color.hue)
