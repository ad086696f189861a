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
    stride_l = torch.tensor(strides, dtype=torch.float32, device=boxes_n4.device)
    rounded_n2 = torch.ceil(sizes_n2.float() / 32) * 32
    across_nl = _best_overlap(boxes_n4[:, 0::2], core_n4[:, 0::2], rounded_n2[:, 1], stride_l)
    down_nl = _best_overlap(boxes_n4[:, 1::2], core_n4[:, 1::2], rounded_n2[:, 0], stride_l)
    return across_nl * down_nl / (stride_l * stride_l) > MIN_OVERLAP


def _best_overlap(side_n2: Tensor, core_n2: Tensor, rounded_n: Tensor, stride_l: Tensor) -> Tensor:
    """(N, L): most pixels of the core in a location's square along an axis; 0 where no location is inside."""
    half_l = stride_l * 0.5
    (low_n1, high_n1), (first_n1, last_n1) = side_n2[..., None].unbind(1), core_n2[..., None].unbind(1)
    limit_nl = torch.ceil(rounded_n[:, None] / stride_l) * stride_l
    before_nl = torch.floor((low_n1 + high_n1) * 0.5 / stride_l) * stride_l
    best_nl = torch.zeros_like(before_nl)
    for at_nl in (before_nl, before_nl + stride_l):
        ok_nl = (at_nl > low_n1) & (at_nl < high_n1) & (at_nl < limit_nl)
        overlap_nl = torch.minimum(at_nl + half_l, last_n1) - torch.maximum(at_nl - half_l, first_n1)
        best_nl = torch.maximum(best_nl, torch.where(ok_nl, overlap_nl, 0.0))
    return best_nl
