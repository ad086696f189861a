"""The levels that can learn a box, computed from the box alone, in NumPy: ``fsaf check`` needs no PyTorch.

The rule is that of ``assign`` for an image without other boxes and crowd regions.
Shapes: N boxes, L levels.
"""

from collections.abc import Sequence

import numpy as np

from fsaf.boxes import STRIDES, Corners, scale_boxes, shared_length
from fsaf.config import ObjectiveConfig
from fsaf.config.data import MULTIPLE

MIN_OVERLAP = 0.01
"""A location touches a region if more than this share of its square lies inside."""


def reachable_levels(
    boxes_n4: np.ndarray, sizes_n2: np.ndarray, config: ObjectiveConfig, strides: Sequence[int] = STRIDES
) -> np.ndarray:
    """Return (N, L) bool: True if the level has a location in the core of the box.

    boxes_n4: xyxy float32 in pixels of the resized image. sizes_n2: height and width of that image.
    The overlap of core and square is a product of one along x and one along y. Along an axis it is largest at
    one of the two locations around the box centre, so only those are tested.
    """
    stride_l = np.array(strides, np.float32)
    height_n1, width_n1 = sizes_n2[:, :1], sizes_n2[:, 1:]
    box = [boxes_n4[:, i, None] for i in range(4)]
    core = scale_boxes(box, config.pos_scale)
    across_nl = _best_overlap(box[0::2], core[0::2], _padding_start(width_n1, stride_l), stride_l)
    down_nl = _best_overlap(box[1::2], core[1::2], _padding_start(height_n1, stride_l), stride_l)
    return across_nl * down_nl / (stride_l * stride_l) > MIN_OVERLAP


def _padding_start(sizes: np.ndarray, stride_l: np.ndarray) -> np.ndarray:
    """Return the coordinate at which padding starts, as ``assign.padding_start``."""
    rounded = np.ceil(sizes.astype(np.float32) / MULTIPLE) * MULTIPLE
    return np.ceil(rounded / stride_l) * stride_l


def _best_overlap(box: Corners, core: Corners, limit_nl: np.ndarray, stride_l: np.ndarray) -> np.ndarray:
    """Return (N, L): the largest overlap of the core with a location's square along an axis; 0 for none.

    box, core: start and end along the axis, (N, 1) each. limit_nl: where padding starts.
    """
    half_l = stride_l * np.float32(0.5)
    low_n1, high_n1 = box
    before_nl = np.floor((low_n1 + high_n1) * np.float32(0.5) / stride_l) * stride_l
    best_nl = np.zeros_like(before_nl)
    for at_nl in (before_nl, before_nl + stride_l):
        ok_nl = (at_nl > low_n1) & (at_nl < high_n1) & (at_nl < limit_nl)
        overlap_nl = shared_length(at_nl - half_l, at_nl + half_l, *core)
        best_nl = np.maximum(best_nl, np.where(ok_nl, overlap_nl, np.float32(0)))
    return best_nl
