"""Losses of single locations and boxes, float32.

Shapes: B batch, C classes, P all locations.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fsaf.boxes import area, intersection

MIN_IOU = 1e-6
"""Lower bound of IoU before its logarithm, and of areas that divide."""


def focal_losses(
    logits_bcp: Tensor, label_bp: Tensor, positive_bp: Tensor, counts_bcp: Tensor, alpha: float, gamma: float
) -> tuple[Tensor, Tensor]:
    """Compute focal losses (Lin et al. 2017, equation 5) per location, own class and other classes apart.

    The own class of a positive location has target 1, every other class target 0.
    label_bp: (B, P) int64, own class of positive locations. counts_bcp: (B, C, P) bool, the logits that have
    a loss; own logits of positive locations always have one.
    Returns the loss summed over the other classes, and the loss of the own class, 0 if the location is not
    positive: (B, P) each. 1 - score is clamped to the smallest normal number, as in MMDetection's CUDA
    kernel, so that even an infinite logit costs at most 88 if its target is 0.
    """
    return _FocalLosses.apply(logits_bcp, label_bp, positive_bp, counts_bcp, alpha, gamma)


NOTHING = -1e4
"""A logit that stands for "no loss": with target 0, its loss and gradient are exactly 0."""


class _FocalLosses(torch.autograd.Function):
    """``focal_losses``, fused to minimise passes over the logits: on a CPU, memory traffic sets the time.

    The forward pass computes the gradient too, and keeps that one tensor for the backward pass; autograd
    would keep one of the logits' size per operator. With s = sigmoid(x), so that ds/dx = s (1 - s):

        target 0: loss = -(1 - alpha) s^gamma log(1 - s)
                  d/dx = (1 - alpha) s^gamma (s - gamma (1 - s) log(1 - s))
        target 1: loss = -alpha (1 - s)^gamma log(s),  d/dx = alpha (1 - s)^gamma (gamma s log(s) - (1 - s))
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits_bcp: Tensor,
        label_bp: Tensor,
        positive_bp: Tensor,
        counts_bcp: Tensor,
        alpha: float,
        gamma: float,
    ) -> tuple[Tensor, Tensor]:
        label_b1p, positive_b1p = label_bp[:, None, :], positive_bp[:, None, :]
        own_b1p = logits_bcp.gather(1, label_b1p)
        x_bcp = torch.where(counts_bcp, logits_bcp, NOTHING)
        x_bcp.scatter_(1, label_b1p, torch.where(positive_b1p, NOTHING, x_bcp.gather(1, label_b1p)))
        score_bcp = x_bcp.sigmoid()
        # Buffers are reused in place, because allocation is the bottleneck: ``rest`` takes the memory of
        # ``x``, ``weight`` that of ``lost``, ``slope`` that of ``score``.
        rest_bcp = x_bcp.neg_().sigmoid_().clamp_(min=torch.finfo(x_bcp.dtype).tiny)  # 1 - score
        # log(1 - score). ``lost`` is the rounding error of ``rest``, subtracted so that small scores keep all
        # digits. ``logsigmoid`` and ``log1p`` are as exact, but nine times as slow as ``log`` on a CPU.
        lost_bcp = (rest_bcp - 1).add_(score_bcp)
        log_rest_bcp = rest_bcp.log().sub_(lost_bcp)
        weight_bcp = torch.pow(score_bcp, gamma, out=lost_bcp)
        slope_bcp = score_bcp.addcmul_(rest_bcp, log_rest_bcp, value=-gamma).mul_(weight_bcp)
        other_bp = log_rest_bcp.mul_(weight_bcp).sum(1) * (alpha - 1)

        score_b1p, rest_b1p, log_b1p = own_b1p.sigmoid(), (-own_b1p).sigmoid(), F.logsigmoid(own_b1p)
        weight_b1p = torch.where(positive_b1p, alpha * rest_b1p.pow(gamma), 0.0)
        own_slope_b1p = weight_b1p * (gamma * score_b1p * log_b1p - rest_b1p)
        # One tensor holds both slopes, because the slope of the own logit as an "other" class is 0.
        slope_bcp.scatter_(
            1, label_b1p, torch.where(positive_b1p, own_slope_b1p, slope_bcp.gather(1, label_b1p))
        )
        ctx.save_for_backward(slope_bcp, label_b1p, positive_b1p)
        ctx.alpha = alpha
        return other_bp, -(weight_b1p * log_b1p)[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, other_bp: Tensor, own_bp: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        slope_bcp, label_b1p, positive_b1p = ctx.saved_tensors
        gradient_bcp = slope_bcp * ((1 - ctx.alpha) * other_bp)[:, None, :]
        own_b1p = own_bp[:, None, :] * slope_bcp.gather(1, label_b1p)
        own_b1p = torch.where(positive_b1p, own_b1p, gradient_bcp.gather(1, label_b1p))
        return gradient_bcp.scatter_(1, label_b1p, own_b1p), None, None, None, None, None


def box_loss(boxes_b4p: Tensor, targets_b4p: Tensor, kind: str = "iou") -> Tensor:
    """Compute the loss (B, P) of predicted boxes against targets, both (B, 4, P) x1, y1, x2, y2.

    kind: ``iou`` is -log(IoU) (UnitBox, Yu et al. 2016); ``giou`` also pulls boxes together that do not
    overlap (Rezatofighi et al. 2019); ``ciou`` adds the distance of the centres and the difference in aspect
    ratio to 1 - IoU (Zheng et al. 2020). Raises ValueError for another kind.
    """
    if kind not in ("iou", "giou", "ciou"):
        raise ValueError(f"box loss {kind!r}: must be iou, giou or ciou")
    ax1, ay1, ax2, ay2 = box = boxes_b4p.unbind(1)
    bx1, by1, bx2, by2 = target = targets_b4p.unbind(1)
    shared = intersection(box, target)
    union = (area(box) + area(target) - shared).clamp(min=MIN_IOU)
    iou = shared / union
    if kind == "iou":
        return -iou.clamp(min=MIN_IOU).log()
    around_w = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    around_h = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    if kind == "giou":
        around = (around_w * around_h).clamp(min=MIN_IOU)
        return 1 - iou + (around - union) / around
    apart = ((ax1 + ax2 - bx1 - bx2).square() + (ay1 + ay2 - by1 - by2).square()) / 4
    diagonal = (around_w.square() + around_h.square()).clamp(min=MIN_IOU)
    shape = torch.atan((bx2 - bx1) / (by2 - by1).clamp(min=MIN_IOU)) - torch.atan(
        (ax2 - ax1) / (ay2 - ay1).clamp(min=MIN_IOU)
    )
    shape = 4 / math.pi**2 * shape.square()
    share = (shape / (1 - iou + shape).clamp(min=MIN_IOU)).detach()
    return 1 - iou + apart / diagonal + share * shape
