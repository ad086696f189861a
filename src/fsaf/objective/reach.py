"""Which levels can learn a box at all, told from the box alone.

Shapes: N boxes, L levels. The rule is ``assign``'s, without what other boxes and crowd regions take away.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fsaf.config import ObjectiveConfig
from fsaf.model.points import STRIDES
from fsaf.objective.assign import MIN_OVERLAP, scale_boxes


def reachable_levels(
    boxes_n4: Tensor, sizes_n2: Tensor, config: ObjectiveConfig, strides: Sequence[int] = STRIDES
) -> Tensor:
    """(N, L) bool: the level has a location in the core of the box.

    boxes_n4: xyxy float32 in pixels of the resized image. sizes_n2: height and width of that image.
    Of a row's locations one of the two on either side of the box's middle overlaps the core most, since both
    core and square are symmetric; rows and columns can be told apart, since the overlap is their product.
    """
    core_n4 = scale_boxes(boxes_n4, config.pos_scale)
    rounded_n2 = torch.ceil(sizes_n2.float() / 32) * 32
    levels = []
    for stride in strides:
        limit_n2 = torch.ceil(rounded_n2 / stride) * stride
        across = _best_overlap(boxes_n4[:, 0::2], core_n4[:, 0::2], limit_n2[:, 1], stride)
        down = _best_overlap(boxes_n4[:, 1::2], core_n4[:, 1::2], limit_n2[:, 0], stride)
        levels.append(across * down / float(stride * stride) > MIN_OVERLAP)
    return torch.stack(levels, 1)


def _best_overlap(side_n2: Tensor, core_n2: Tensor, limit_n: Tensor, stride: int) -> Tensor:
    """(N,): most pixels of the core in a location's square along an axis; 0 where no location is inside."""
    half = stride * 0.5
    first_n = torch.floor((side_n2[:, 0] + side_n2[:, 1]) * 0.5 / stride)
    best_n = torch.zeros_like(first_n)
    for at_n in (first_n * stride, (first_n + 1) * stride):
        ok_n = (at_n > side_n2[:, 0]) & (at_n < side_n2[:, 1]) & (at_n < limit_n)
        overlap_n = torch.minimum(at_n + half, core_n2[:, 1]) - torch.maximum(at_n - half, core_n2[:, 0])
        best_n = torch.maximum(best_n, torch.where(ok_n, overlap_n, 0.0))
    return best_n
