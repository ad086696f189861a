"""The training objective: raw outputs and boxes to loss terms.

Shapes: B batch, G padded boxes of an image, L levels.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fsaf.config import ObjectiveConfig
from fsaf.data.batch import Boxes
from fsaf.model.detector import RawOutputs
from fsaf.model.points import STRIDES
from fsaf.objective.anchor_based import anchor_losses
from fsaf.objective.anchor_free import anchor_free_losses


class Sums(NamedTuple):
    """What is added up over the micro-batches of a step; float32 tensors."""

    positives: Tensor
    """Scalar: locations that are positive after selection."""
    negatives: Tensor
    """Scalar: background locations."""
    right: Tensor
    """Scalar: positives whose highest score is their own class."""
    images: Tensor
    """Scalar: images, without blank rows."""
    anchor_positives: Tensor
    """Scalar: positive anchors."""
    anchor_cls: Tensor
    """Scalar: focal loss of anchors."""
    anchor_box: Tensor
    """Scalar: box loss of anchors."""
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
        return cls(*(levels[0] for _ in range(7)), *(levels for _ in range(3)))

    def plus(self, earlier: "Sums") -> "Sums":
        """The sums of both."""
        return Sums(*(now + before for now, before in zip(self, earlier, strict=True)))

    def detach(self) -> "Sums":
        """The same without gradients."""
        return Sums(*(tensor.detach() for tensor in self))


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
    anchor_cls: Tensor
    """Scalar: focal loss of anchors over the number of positive ones; 0 without them."""
    anchor_box: Tensor
    """Scalar: box loss of anchors over the number of positive ones; 0 without them."""
    num_pos: Tensor
    """Scalar: positives (after selection; without that branch, anchors) for each image (mean)."""
    pos_recall: Tensor
    """Scalar: percent of those, after selection, whose highest score is their own class."""
    level_share_l: Tensor
    """(L,) share of the boxes that chose each level."""
    level_bg: Tensor
    """(B, G) int64: the level each box of this batch chose; -1 where it has no positive location."""
    divisor: Tensor
    """Scalar: what the losses were divided by; with both branches, the anchor-free ones."""
    sums: Sums
    """For the next micro-batch of the step; without gradients."""


def objective(
    outputs: RawOutputs,
    boxes: Boxes,
    config: ObjectiveConfig,
    mean_counts: Callable[[Tensor], Tensor] | None = None,
    earlier: Sums | None = None,
) -> LossTerms:
    """Losses of a batch, of the branches that ``outputs`` has (FSAF, section 3.4).

    The anchor-free losses are divided by the positives that survive selection in this batch, or by its
    background locations if there are none; those of anchors by the positive anchors. With both, the
    anchor-free ones weigh ``config.anchor_free_weight``. mean_counts: makes of these three counts, a tensor
    (3,), their means over all processes; the sums are then divided by those. earlier: the sums of the step's
    micro-batches before this one, which count as if they were in this batch.
    """
    both = bool(outputs.logits) and bool(outputs.anchor_logits)
    sums = Sums.zero(boxes.xyxy.device)._replace(images=(boxes.sizes[:, 0] > 0).float().sum())
    level_bg = torch.full_like(boxes.labels, -1)
    if outputs.logits:
        free = anchor_free_losses(outputs, boxes, config)
        level_bg = free.level_bg
        level_l = torch.arange(len(STRIDES), device=level_bg.device)
        sums = sums._replace(
            positives=free.positives,
            negatives=free.negatives,
            right=free.right,
            chosen_l=(level_bg[..., None] == level_l).float().sum((0, 1)),
            cls_l=free.cls_l,
            box_l=free.box_l,
        )
    if outputs.anchor_logits:
        based = anchor_losses(outputs, boxes, config)
        sums = sums._replace(anchor_positives=based.positives, anchor_cls=based.cls, anchor_box=based.box)
    if earlier is not None:
        sums = sums.plus(earlier)

    counts = torch.stack([sums.positives, sums.negatives, sums.anchor_positives]).detach()
    positives, negatives, anchor_positives = mean_counts(counts) if mean_counts else counts
    divisor = torch.where(positives > 0, positives, negatives)
    divisor = torch.where(divisor > 0, divisor, 1.0)
    anchor_divisor = torch.where(anchor_positives > 0, anchor_positives, 1.0)
    weight = config.anchor_free_weight if both else 1.0
    loss_cls_l, loss_box_l = weight * (sums.cls_l / divisor), weight * (sums.box_l / divisor)
    anchor_cls, anchor_box = sums.anchor_cls / anchor_divisor, sums.anchor_box / anchor_divisor
    shown = sums.positives if outputs.logits else sums.anchor_positives
    return LossTerms(
        loss=loss_cls_l.sum() + loss_box_l.sum() + anchor_cls + anchor_box,
        loss_cls_l=loss_cls_l,
        loss_box_l=loss_box_l,
        anchor_cls=anchor_cls,
        anchor_box=anchor_box,
        num_pos=shown / sums.images.clamp(min=1),
        pos_recall=100 * sums.right / sums.positives.clamp(min=1),
        level_share_l=sums.chosen_l / sums.chosen_l.sum().clamp(min=1),
        level_bg=level_bg,
        divisor=divisor if outputs.logits else anchor_divisor,
        sums=sums.detach(),
    )
