"""Locations of the pyramid's levels, and boxes as distances from them.

Shapes: B batch, P all locations of all levels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fsaf.boxes import STRIDES as STRIDES

DISTANCE_UNIT = 4.0
"""Distances are predicted in units of this many strides (TBLRBBoxCoder's normalizer)."""


class Points(NamedTuple):
    """Locations of all levels, level by level and row by row, in pixels of the padded batch."""

    x: Tensor
    """(P,) float32."""
    y: Tensor
    """(P,) float32."""
    stride: Tensor
    """(P,) float32, pixels."""
    level_shapes: list[tuple[int, int]]
    """(height, width) of each level."""

    @property
    def level_sizes(self) -> list[int]:
        """Number of locations of each level."""
        return [height * width for height, width in self.level_shapes]


def level_axes(shape: tuple[int, int], stride: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return x (W,) and y (H,) of a level's columns and rows: float32, pixels of the padded batch.

    Location (i, j) of a level with stride s lies at x = j*s, y = i*s: no half-cell offset.
    """
    y, x = (torch.arange(side, device=device, dtype=torch.float32) * stride for side in shape)
    return x, y


def make_points(
    level_shapes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device
) -> Points:
    """Return the locations of all levels. level_shapes: (height, width) of each."""
    xs, ys, ss = [], [], []
    for (height, width), stride in zip(level_shapes, strides, strict=True):
        x, y = level_axes((height, width), stride, device)
        xs.append(x[None, :].expand(height, width).reshape(-1))
        ys.append(y[:, None].expand(height, width).reshape(-1))
        ss.append(torch.full((height * width,), float(stride), device=device))
    return Points(torch.cat(xs), torch.cat(ys), torch.cat(ss), list(level_shapes))


def decode_boxes(distances_b4p: Tensor, points: Points) -> Tensor:
    """Decode boxes from predicted distances.

    distances_b4p: (B, 4, P) float32: top, bottom, left, right in units of ``DISTANCE_UNIT`` strides.
    Returns (B, 4, P) boxes x1, y1, x2, y2 in pixels of the resized image, not clipped.
    """
    top, bottom, left, right = (distances_b4p * (points.stride * DISTANCE_UNIT)).unbind(1)
    return torch.stack((points.x - left, points.y - top, points.x + right, points.y + bottom), 1)
