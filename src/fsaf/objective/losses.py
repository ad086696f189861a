"""Element-wise losses, float32.

Shapes: B batch, C classes, P all locations.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

MIN_IOU = 1e-6
"""IoU is clamped to this before its logarithm, and areas before they divide."""


def sigmoid_focal_loss(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss of each element (Lin et al. 2017, equation 5); targets 0 or 1 of the logits' shape."""
    right = logits * (2 * targets - 1)  # how much the logit speaks for the right answer
    weight = (alpha * targets + (1 - alpha) * (1 - targets)) * (-right).sigmoid().pow(gamma)
    # The cross-entropy; Ascend's graph compiler lacks binary_cross_entropy_with_logits and softplus.
    return weight * -F.logsigmoid(right)


def iou_loss(boxes_b4p: Tensor, targets_b4p: Tensor) -> Tensor:
    """-log(IoU) of aligned boxes x1, y1, x2, y2 (UnitBox, Yu et al. 2016), (B, P)."""
    ax1, ay1, ax2, ay2 = boxes_b4p.unbind(1)
    bx1, by1, bx2, by2 = targets_b4p.unbind(1)
    width = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    height = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    overlap = width * height
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - overlap
    return -(overlap / union.clamp(min=MIN_IOU)).clamp(min=MIN_IOU).log()
