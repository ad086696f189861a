"""The training objective: raw outputs and boxes to loss terms.

Shapes: B batch, C classes, G padded boxes of an image, L levels, P all locations.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fsaf.config import ObjectiveConfig
from fsaf.data.batch import Boxes
from fsaf.model.detector import RawOutputs
from fsaf.model.points import STRIDES, decode_boxes
from fsaf.objective.assign import assign
from fsaf.objective.losses import iou_loss, sigmoid_focal_loss
from fsaf.objective.select import level_losses, on_selected_level, select_levels

MIN_DISTANCE = 1e-4
"""Distances are clamped to this in the loss, so that no predicted box is empty."""


class Sums(NamedTuple):
    """What is added up over the micro-batches of a step; float32 tensors without a gradient."""

    positives: Tensor
    """Scalar: locations that are positive after selection."""
    negatives: Tensor
    """Scalar: background locations."""
    right: Tensor
    """Scalar: positives whose highest score is their own class."""
    images: Tensor
    """Scalar: images, without blank rows."""
    chosen_l: Tensor
    """(L,) boxes that chose each level."""
    cls_l: Tensor
    """(L,) focal loss of each level."""
    box_l: Tensor
    """(L,) IoU loss of each level."""

    @classmethod
    def zero(cls, device: torch.device) -> "Sums":
        """Those of no batch at all."""
        levels = torch.zeros(len(STRIDES), device=device)
        return cls(*(levels[0] for _ in range(4)), *(levels for _ in range(3)))


class LossTerms(NamedTuple):
    """Tensors on the device of the outputs; reading one is the caller's synchronisation.

    Where a step has several micro-batches they are about those so far, except the gradient and ``level_bg``.
    """

    loss: Tensor
    """Scalar: what is minimised, the sum of all terms below. Its gradient is that of this batch's part."""
    loss_cls_l: Tensor
    """(L,) focal loss of each level over the number of positives."""
    loss_box_l: Tensor
    """(L,) IoU loss of each level over the number of positives."""
    num_pos: Tensor
    """Scalar: positives after selection for each image of the batch (mean)."""
    pos_recall: Tensor
    """Scalar: percent of those whose highest score is their own class."""
    level_share_l: Tensor
    """(L,) share of the boxes that chose each level."""
    level_bg: Tensor
    """(B, G) int64: the level each box of this batch chose; -1 where it has no positive location."""
    divisor: Tensor
    """Scalar: what the losses were divided by."""
    sums: Sums
    """For the next micro-batch of the step."""


def objective(
    outputs: RawOutputs,
    boxes: Boxes,
    config: ObjectiveConfig,
    mean_counts: Callable[[Tensor], Tensor] | None = None,
    earlier: Sums | None = None,
) -> LossTerms:
    """Losses of a batch, as MMDetection 3.3's FSAFHead computes them, with every shape fixed.

    Both sums are divided by the positives that survive selection in this batch, or by its background
    locations if there are none. mean_counts: makes of these two counts, a tensor (2,), their means over all
    processes; the sums are then divided by those. earlier: the sums of the step's micro-batches before this
    one, which count as if they were in this batch.
    """
    logits_bcp, distances_b4p, points = outputs.flat()
    sizes = points.level_sizes
    assigned = assign(points.level_shapes, boxes, logits_bcp.shape[1], config)
    positive_bp, box_bp = assigned.positive_bp, assigned.box_bp

    class_c = torch.arange(logits_bcp.shape[1], device=logits_bcp.device)
    own_bcp = (assigned.label_bp[:, None, :] == class_c[:, None]) & positive_bp[:, None, :]
    focal_bcp = sigmoid_focal_loss(logits_bcp, own_bcp.float(), config.alpha, config.gamma)
    focal_bcp = torch.where(assigned.counts_bcp, focal_bcp, 0.0)

    # Where nothing is to be learned the target is the prediction: the loss and its gradient are finite.
    predicted_b4p = decode_boxes(distances_b4p.clamp(min=MIN_DISTANCE), points)
    target_b4p = torch.gather(boxes.xyxy.mT, 2, box_bp[:, None, :].expand(-1, 4, -1))
    target_b4p = torch.where(positive_bp[:, None, :], target_b4p, predicted_b4p.detach())
    box_loss_bp = torch.where(positive_bp, iou_loss(predicted_b4p, target_b4p), 0.0)

    with torch.no_grad():
        total_bp = focal_bcp.sum(1) + box_loss_bp
        losses_bgl = level_losses(total_bp, positive_bp, box_bp, sizes, boxes.xyxy.shape[1])
        level_bg, has_level_bg = select_levels(losses_bgl)
        kept_bp = positive_bp & on_selected_level(level_bg, box_bp, sizes)
        lost_bp = positive_bp & ~kept_bp

    # On levels not selected, a box's locations lose the box loss and the loss of the box's class.
    focal_bcp = torch.where(lost_bp[:, None, :] & own_bcp, 0.0, focal_bcp)
    box_loss_bp = torch.where(kept_bp, box_loss_bp, 0.0)
    cls_l = torch.stack([part.sum() for part in focal_bcp.split(sizes, 2)])
    box_l = torch.stack([part.sum() for part in box_loss_bp.split(sizes, 1)])

    with torch.no_grad():
        right_bp = (logits_bcp.argmax(1) == assigned.label_bp) & kept_bp
        level_l = torch.arange(len(sizes), device=level_bg.device)
        sums = Sums(
            positives=kept_bp.float().sum(),
            negatives=assigned.negative_bp.float().sum(),
            right=right_bp.float().sum(),
            images=(boxes.sizes[:, 0] > 0).float().sum(),
            chosen_l=((level_bg[..., None] == level_l) & has_level_bg[..., None]).float().sum((0, 1)),
            cls_l=cls_l.detach(),
            box_l=box_l.detach(),
        )
    if earlier is not None:
        cls_l, box_l = cls_l + earlier.cls_l, box_l + earlier.box_l
        sums = Sums(*(now + before for now, before in zip(sums, earlier, strict=True)))
    counts = torch.stack([sums.positives, sums.negatives])
    positives, negatives = mean_counts(counts) if mean_counts else counts
    divisor = torch.where(positives > 0, positives, negatives)
    divisor = torch.where(divisor > 0, divisor, 1.0)
    loss_cls_l, loss_box_l = cls_l / divisor, box_l / divisor
    return LossTerms(
        loss=loss_cls_l.sum() + loss_box_l.sum(),
        loss_cls_l=loss_cls_l,
        loss_box_l=loss_box_l,
        num_pos=sums.positives / sums.images.clamp(min=1),
        pos_recall=100 * sums.right / sums.positives.clamp(min=1),
        level_share_l=sums.chosen_l / sums.chosen_l.sum().clamp(min=1),
        level_bg=torch.where(has_level_bg, level_bg, -1),
        divisor=divisor,
        sums=sums,
    )
