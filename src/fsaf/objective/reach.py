"""The levels that can learn a box, computed from the box alone.

The rule is that of ``assign`` for an image without other boxes and crowd regions.
Shapes: N boxes, L levels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fsaf.boxes import Corners, scale_boxes, shared_length
from fsaf.config import ObjectiveConfig
from fsaf.model.points import STRIDES
from fsaf.objective.assign import MIN_OVERLAP, padding_start


def reachable_levels(
    boxes_n4: Tensor, sizes_n2: Tensor, config: ObjectiveConfig, strides: Sequence[int] = STRIDES
) -> Tensor:
    """Return (N, L) bool: True if the level has a location in the core of the box.

    boxes_n4: xyxy float32 in pixels of the resized image. sizes_n2: height and width of that image.
    The overlap of core and square is a product of one along x and one along y. Along an axis it is largest at
    one of the two locations around the box centre, so only those are tested.
    """
    stride_l = torch.tensor(strides, dtype=torch.float32, device=boxes_n4.device)
    height_n1, width_n1 = sizes_n2[:, :1], sizes_n2[:, 1:]
    box = boxes_n4[..., None].unbind(1)
    core = scale_boxes(box, config.pos_scale)
    across_nl = _best_overlap(box[0::2], core[0::2], padding_start(width_n1, stride_l), stride_l)
    down_nl = _best_overlap(box[1::2], core[1::2], padding_start(height_n1, stride_l), stride_l)
    return across_nl * down_nl / (stride_l * stride_l) > MIN_OVERLAP


def _best_overlap(box: Corners, core: Corners, limit_nl: Tensor, stride_l: Tensor) -> Tensor:
    """Return (N, L): the largest overlap of the core with a location's square along an axis; 0 for none.

    box, core: start and end along the axis, (N, 1) each. limit_nl: where padding starts.
    """
    half_l = stride_l * 0.5
    low_n1, high_n1 = box
    before_nl = torch.floor((low_n1 + high_n1) * 0.5 / stride_l) * stride_l
    best_nl = torch.zeros_like(before_nl)
    for at_nl in (before_nl, before_nl + stride_l):
        ok_nl = (at_nl > low_n1) & (at_nl < high_n1) & (at_nl < limit_nl)
        overlap_nl = shared_length(at_nl - half_l, at_nl + half_l, *core)
        best_nl = torch.maximum(best_nl, torch.where(ok_nl, overlap_nl, 0.0))
    return best_nl
