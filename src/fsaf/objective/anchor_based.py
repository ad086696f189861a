"""Losses of the anchor-based branch, RetinaNet's (Lin et al. 2017, section 4), with every shape fixed.

Shapes: B batch, C classes, G padded boxes of an image, N all anchors.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fsaf.boxes import iou
from fsaf.config import ObjectiveConfig
from fsaf.data.batch import Boxes
from fsaf.model.anchors import KINDS, decode_deltas, encode_deltas
from fsaf.model.outputs import AnchorOutputs
from fsaf.objective.assign import taking_part
from fsaf.objective.losses import box_loss, focal_losses

POSITIVE_IOU, NEGATIVE_IOU = 0.5, 0.4
"""An anchor learns the box that it overlaps most if their IoU is at least the first; it is background if
every IoU is below the second."""
SAME = 1e-5
"""Relative tolerance for ties: a small box inside several anchors of one size has the same IoU with each, up
to rounding."""
SMOOTH_L1_BETA = 1 / 9
"""Error at which the smooth-L1 loss turns from quadratic to linear (Detectron's value)."""


class AnchorMatches(NamedTuple):
    """The box that each anchor learns. Anchors neither positive nor negative learn nothing."""

    box_bn: Tensor
    """(B, N) int64: which of the G boxes; 0 if not positive."""
    positive_bn: Tensor
    """(B, N) bool: the anchor learns a box."""
    negative_bn: Tensor
    """(B, N) bool: the anchor is background."""


def match_anchors(anchors_4n: Tensor, boxes: Boxes, part_bn: Tensor) -> AnchorMatches:
    """Match boxes to anchors as MMDetection's MaxIoUAssigner does with RetinaNet's settings.

    Besides the anchors above ``POSITIVE_IOU``, each box gets the anchors that overlap it most, however
    little, even if they overlap another box more. If two boxes share their best anchor, the later box gets
    it. Crowd regions match nothing. part_bn: (B, N) bool, the anchors that take part.
    """
    index_g1 = torch.arange(boxes.xyxy.shape[1], device=anchors_4n.device, dtype=torch.float32)[:, None]
    found = []
    # Image by image, because the overlaps of a whole batch would take gigabytes.
    for xyxy_g4, real_g, part_n in zip(boxes.xyxy, boxes.valid & ~boxes.crowd, part_bn, strict=True):
        counts_gn = real_g[:, None] & part_n
        iou_gn = torch.where(counts_gn, iou(xyxy_g4[..., None].unbind(1), anchors_4n.unbind(0)), -1.0)
        best_n, box_n = iou_gn.max(0)
        most_g1 = iou_gn.amax(1, keepdim=True)
        own_gn = (iou_gn >= most_g1 * (1 - SAME)) & (most_g1 > 0)
        owner_n = torch.where(own_gn, index_g1, -1.0).amax(0)
        box_n = torch.where(owner_n >= 0, owner_n.long(), box_n)
        positive_n = (best_n >= POSITIVE_IOU) | (owner_n >= 0)
        negative_n = part_n & (best_n < NEGATIVE_IOU) & ~positive_n
        found.append((torch.where(positive_n, box_n, 0), positive_n, negative_n))
    return AnchorMatches(*(torch.stack(parts) for parts in zip(*found, strict=True)))


class AnchorSums(NamedTuple):
    """Sums over a batch: its losses, and the count that divides them; scalars."""

    cls: Tensor
    """Focal loss."""
    box: Tensor
    """Box loss of the positive anchors."""
    positives: Tensor
    """Number of positive anchors, without a gradient."""


def anchor_losses(outputs: AnchorOutputs, boxes: Boxes, config: ObjectiveConfig) -> AnchorSums:
    """Compute focal losses of positive and negative anchors for all classes, and box losses of positive ones.

    ``config.anchor_box_loss`` ``smooth_l1`` and ``l1`` compare the deltas, the others (``box_loss``) the
    decoded boxes. Anchors centred outside their image, or in the middle of a crowd region, learn nothing.
    """
    logits_bcn, deltas_b4n, anchors_4n, _ = outputs.flat()
    shapes = [(x.shape[-2], x.shape[-1]) for x in outputs.logits]
    part_bp = taking_part(shapes, boxes)
    part_bn = torch.cat([part.repeat(1, KINDS) for part in part_bp.split([h * w for h, w in shapes], 1)], 1)
    matches = match_anchors(anchors_4n, boxes, part_bn)
    label_bn = torch.gather(boxes.labels, 1, matches.box_bn)
    counts_bcn = (matches.positive_bn | matches.negative_bn)[:, None, :].expand(logits_bcn.shape)
    other_bn, own_bn = focal_losses(
        logits_bcn, label_bn, matches.positive_bn, counts_bcn, config.alpha, config.gamma
    )

    # Anchors that learn no box get themselves as target, so that every number is finite.
    target_b4n = torch.gather(boxes.xyxy.mT, 2, matches.box_bn[:, None, :].expand(-1, 4, -1))
    target_b4n = torch.where(matches.positive_bn[:, None, :], target_b4n, anchors_4n)
    kind = config.anchor_box_loss
    if kind not in ("smooth_l1", "l1"):
        loss_bn = box_loss(decode_deltas(deltas_b4n, anchors_4n), target_b4n, kind)
    else:
        error_b4n = (deltas_b4n - encode_deltas(target_b4n, anchors_4n)).abs()
        if kind == "smooth_l1":
            small_b4n = 0.5 * error_b4n * error_b4n / SMOOTH_L1_BETA
            error_b4n = torch.where(error_b4n < SMOOTH_L1_BETA, small_b4n, error_b4n - 0.5 * SMOOTH_L1_BETA)
        loss_bn = error_b4n.sum(1)
    return AnchorSums(
        cls=(other_bn + own_bn).sum(),
        box=torch.where(matches.positive_bn, loss_bn, 0.0).sum(),
        positives=matches.positive_bn.float().sum(),
    )
