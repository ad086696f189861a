"""The training objective: raw outputs and boxes to loss terms.

Shapes: B batch, G padded boxes of an image, L levels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from fsaf.config import ObjectiveConfig
from fsaf.data.batch import Boxes
from fsaf.device import to_host
from fsaf.model.outputs import RawOutputs
from fsaf.model.points import STRIDES
from fsaf.objective.anchor_based import AnchorSums, anchor_losses
from fsaf.objective.anchor_free import FreeSums, anchor_free_losses

AnyTuple = TypeVar("AnyTuple", bound=tuple[Any, ...])


class Sums(NamedTuple):
    """Sums over the micro-batches of a step. A branch that the network does not have adds 0."""

    images: Tensor
    """Scalar: images, without blank rows."""
    free: FreeSums
    """Losses and counts of the anchor-free branch."""
    anchors: AnchorSums
    """Losses and count of the anchor-based branch."""

    @classmethod
    def zero(cls, device: torch.device) -> "Sums":
        """Return the sums of no batch at all."""
        scalar, levels = torch.zeros((), device=device), torch.zeros(len(STRIDES), device=device)
        return cls(
            images=scalar,
            free=FreeSums(
                cls_l=levels, box_l=levels, chosen_l=levels, positives=scalar, negatives=scalar, right=scalar
            ),
            anchors=AnchorSums(cls=scalar, box=scalar, positives=scalar),
        )

    def plus(self, earlier: "Sums") -> "Sums":
        """Add the sums of other micro-batches."""
        return _map(torch.add, self, earlier)

    def to_host(self) -> "Sums":
        """Copy to the CPU."""
        return _map(to_host, self)

    def detach(self) -> "Sums":
        """Return the same without gradients."""
        return _map(Tensor.detach, self)


def _map(function: Callable[..., Tensor], first: AnyTuple, *others: AnyTuple) -> AnyTuple:
    """Apply ``function`` to the tensors of equal fields of nested named tuples."""
    return type(first)(
        *(
            function(*parts) if isinstance(parts[0], Tensor) else _map(function, *parts)
            for parts in zip(first, *others, strict=True)
        )
    )


class Statistics(NamedTuple):
    """Figures for the log, beside the losses."""

    num_pos: Tensor
    """Scalar: positives (after selection; without that branch, anchors) for each image (mean)."""
    pos_recall: Tensor
    """Scalar: percent of the positives after selection whose highest score is their own class."""
    level_share_l: Tensor
    """(L,) share of the boxes that chose each level."""


class LossTerms(NamedTuple):
    """Losses of a step, as tensors on the device of the outputs: reading one waits for the device.

    In a step of several micro-batches they cover those so far, but for ``level_bg`` and the gradient.
    """

    loss: Tensor
    """Scalar: what is minimised, the sum of the next four. Its gradient is that of this batch's part."""
    loss_cls_l: Tensor
    """(L,) focal loss of each level over the number of positives."""
    loss_box_l: Tensor
    """(L,) box loss of each level over the number of positives."""
    anchor_cls: Tensor
    """Scalar: focal loss of anchors over the number of positive ones; 0 without them."""
    anchor_box: Tensor
    """Scalar: box loss of anchors over the number of positive ones; 0 without them."""
    statistics: Statistics
    """Figures for the log."""
    level_bg: Tensor
    """(B, G) int64: the level that each box of this batch chose; -1 if it has no positive location."""
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
    """Compute the losses of a batch, of the branches that ``outputs`` has (FSAF, section 3.4).

    The anchor-free losses are divided by the positives that survive selection in this batch, or by its
    background locations if there are none; those of anchors by the positive anchors. With both, the
    anchor-free losses are multiplied by ``config.anchor_free_weight``.
    mean_counts: averages the counts that losses are divided by, a tensor (3,), over all processes.
    earlier: sums of the step's micro-batches before this one, which count as if they were in this batch.
    """
    sums = Sums.zero(boxes.xyxy.device)._replace(images=(boxes.sizes[:, 0] > 0).float().sum())
    level_bg = torch.full_like(boxes.labels, -1)
    if outputs.free is not None:
        free, level_bg = anchor_free_losses(outputs.free, boxes, config)
        sums = sums._replace(free=free)
    if outputs.anchors is not None:
        sums = sums._replace(anchors=anchor_losses(outputs.anchors, boxes, config))
    if earlier is not None:
        sums = sums.plus(earlier)

    return divide(sums, level_bg, config, outputs.free is not None, outputs.anchors is not None, mean_counts)


def divide(
    sums: Sums,
    level_bg: Tensor,
    config: ObjectiveConfig,
    has_free: bool,
    has_anchors: bool,
    mean_counts: Callable[[Tensor], Tensor] | None = None,
) -> LossTerms:
    """Divide the sums of a step by their counts, as ``objective`` describes.

    has_free, has_anchors: the branches of the network.
    """
    free, anchors = sums.free, sums.anchors
    counts = torch.stack([free.positives, free.negatives, anchors.positives]).detach()
    positives, negatives, anchor_positives = mean_counts(counts) if mean_counts else counts
    divisor = torch.where(positives > 0, positives, negatives)
    divisor = torch.where(divisor > 0, divisor, 1.0)
    anchor_divisor = torch.where(anchor_positives > 0, anchor_positives, 1.0)
    weight = config.anchor_free_weight if has_free and has_anchors else 1.0
    loss_cls_l, loss_box_l = weight * (free.cls_l / divisor), weight * (free.box_l / divisor)
    anchor_cls, anchor_box = anchors.cls / anchor_divisor, anchors.box / anchor_divisor
    shown = free.positives if has_free else anchors.positives
    return LossTerms(
        loss=loss_cls_l.sum() + loss_box_l.sum() + anchor_cls + anchor_box,
        loss_cls_l=loss_cls_l,
        loss_box_l=loss_box_l,
        anchor_cls=anchor_cls,
        anchor_box=anchor_box,
        statistics=Statistics(
            num_pos=shown / sums.images.clamp(min=1),
            pos_recall=100 * free.right / free.positives.clamp(min=1),
            level_share_l=free.chosen_l / free.chosen_l.sum().clamp(min=1),
        ),
        level_bg=level_bg,
        divisor=divisor if has_free else anchor_divisor,
        sums=sums.detach(),
    )
