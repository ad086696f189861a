"""Boxes x1, y1, x2, y2 in pixels: area, overlap, scaling, clipping, mirroring, turning.

Functions of corners take a box, or many, as its four coordinates: ``boxes.unbind(-1)`` of a tensor (..., 4),
``boxes.T`` of an array (n, 4), or four numbers. Coordinates of two boxes broadcast against each other.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # importing PyTorch takes a second, and some users of this file have arrays alone
    from torch import Tensor

Corners = Sequence[Any] | np.ndarray

STRIDES = (8, 16, 32, 64, 128)
"""Pixels between neighbouring locations, level by level (P3..P7)."""


def area(box: Iterable[Any]) -> Any:
    """Return the area of boxes given by corners."""
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)


def shared_length(start: Any, end: Any, other_start: Any, other_end: Any) -> Any:
    """Return the length of the part that two intervals share; 0 if they do not meet."""
    if isinstance(start, (int, float)):
        return max(min(end, other_end) - max(start, other_start), 0)
    if isinstance(start, np.ndarray):
        return (np.minimum(end, other_end) - np.maximum(start, other_start)).clip(0)
    return (end.minimum(other_end) - start.maximum(other_start)).clamp(min=0)


def intersection(a: Corners, b: Corners) -> Any:
    """Return the area that boxes ``a`` and ``b`` share, given by corners."""
    return shared_length(a[0], a[2], b[0], b[2]) * shared_length(a[1], a[3], b[1], b[3])


def iou(a: Corners, b: Corners) -> Any:
    """Return intersection over union of boxes given by corners; NaN for two of no area."""
    shared = intersection(a, b)
    return shared / (area(a) + area(b) - shared)


def scale_boxes(box: Iterable[Any], factor: float) -> tuple[Any, Any, Any, Any]:
    """Scale boxes about their centres; returns corners."""
    x1, y1, x2, y2 = box
    half_w, half_h = (x2 - x1) * 0.5 * factor, (y2 - y1) * 0.5 * factor
    cx, cy = (x2 + x1) * 0.5, (y2 + y1) * 0.5
    return cx - half_w, cy - half_h, cx + half_w, cy + half_h


def clip_boxes(boxes_b4p: "Tensor", sizes_b2: "Tensor") -> "Tensor":
    """Move coordinates of boxes (B, 4, P) into [0, width] and [0, height] of their image.

    sizes_b2: (B, 2) height and width of each image.
    """
    limits_b4 = sizes_b2.flip(1).repeat(1, 2).to(boxes_b4p.dtype)
    return boxes_b4p.clamp(min=0).minimum(limits_b4[:, :, None])


def mirror_boxes(boxes: np.ndarray, size: tuple[int, int], horizontal: bool, vertical: bool) -> np.ndarray:
    """Mirror boxes (n, 4) together with their image of ``size`` (height, width)."""
    x1, y1, x2, y2 = boxes.T
    if horizontal:
        x1, x2 = size[1] - x2, size[1] - x1
    if vertical:
        y1, y2 = size[0] - y2, size[0] - y1
    return np.stack((x1, y1, x2, y2), 1)


def turn_boxes(boxes: np.ndarray, size: tuple[int, int], quarters: int) -> np.ndarray:
    """Turn boxes (n, 4) together with their image of ``size`` (height, width), as ``torch.rot90`` does.

    quarters: number of quarter turns counterclockwise.
    """
    height, width = size
    for _ in range(quarters % 4):
        x1, y1, x2, y2 = boxes.T
        boxes = np.stack((y1, width - x2, y2, width - x1), 1)
        height, width = width, height
    return boxes
