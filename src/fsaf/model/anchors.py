"""Anchors of the anchor-based branch (RetinaNet, Lin et al. 2017, section 4), and boxes relative to them.

Shapes: B batch, N anchors of all levels, ordered by level, then by kind (by ratio, then by size), then row by
row.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fsaf.model.points import level_axes

SIZES = tuple(4 * 2 ** (k / 3) for k in range(3))
"""Side of square anchors, in strides of their level."""
RATIOS = (0.5, 1.0, 2.0)
"""Height over width; the area stays the same."""
KINDS = len(SIZES) * len(RATIOS)
"""Number of anchors at each location."""
MAX_LOG_SCALE = math.log(1000 / 16)
"""Clamp for |log(box side / anchor side)| when decoding."""


def make_anchors(
    level_shapes: Sequence[tuple[int, int]], strides: Sequence[int], device: torch.device
) -> Tensor:
    """Return anchors (4, N) float32 x1, y1, x2, y2, centred on the locations, in pixels of the padded batch.

    level_shapes: (height, width) of each level.
    """
    levels = []
    for (height, width), stride in zip(level_shapes, strides, strict=True):
        x, y = level_axes((height, width), stride, device)
        y, x = y[:, None].expand(height, width), x.expand(height, width)
        for ratio in RATIOS:
            for size in SIZES:
                half_w, half_h = 0.5 * stride * size / ratio**0.5, 0.5 * stride * size * ratio**0.5
                levels.append(torch.stack((x - half_w, y - half_h, x + half_w, y + half_h)).flatten(1))
    return torch.cat(levels, 1)


def encode_deltas(boxes_b4n: Tensor, anchors_4n: Tensor) -> Tensor:
    """Return regression targets (B, 4, N) of boxes x1, y1, x2, y2 with positive area (``decode_deltas``)."""
    ax, ay, aw, ah = _centre_and_sides(anchors_4n.unbind(0))
    x, y, w, h = _centre_and_sides(boxes_b4n.unbind(1))
    return torch.stack(((x - ax) / aw, (y - ay) / ah, (w / aw).log(), (h / ah).log()), 1)


def decode_deltas(deltas_b4n: Tensor, anchors_4n: Tensor) -> Tensor:
    """Decode boxes (B, 4, N) x1, y1, x2, y2 in pixels of the resized image, not clipped.

    deltas_b4n: shift of the centre along x and y in anchor widths and heights, and the logarithms of box
    width over anchor width and of box height over anchor height.
    """
    ax, ay, aw, ah = _centre_and_sides(anchors_4n.unbind(0))
    dx, dy, dw, dh = deltas_b4n.unbind(1)
    half_w = 0.5 * aw * dw.clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp()
    half_h = 0.5 * ah * dh.clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp()
    x, y = ax + dx * aw, ay + dy * ah
    return torch.stack((x - half_w, y - half_h, x + half_w, y + half_h), 1)


def _centre_and_sides(corners: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = corners
    return (x1 + x2) * 0.5, (y1 + y2) * 0.5, x2 - x1, y2 - y1
