"""Losses of the anchor-free branch: focal loss, box loss, and the choice of a level for each box.

Shapes: B batch, C classes, G padded boxes of an image, L levels, P all locations.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fsaf.config import ObjectiveConfig
from fsaf.data.batch import Boxes
from fsaf.model.outputs import FreeOutputs
from fsaf.model.points import decode_boxes
from fsaf.objective.assign import assign
from fsaf.objective.losses import box_loss, focal_losses
from fsaf.objective.select import (
    level_losses,
    levels_by_size,
    on_selected_level,
    select_levels,
    without_lower_levels,
)

MIN_DISTANCE = 1e-4
"""Lower bound of distances in the loss, so that no predicted box is empty."""


class FreeSums(NamedTuple):
    """Sums over a batch: its losses, and the counts that divide them or that the log shows."""

    cls_l: Tensor
    """(L,) focal loss of each level."""
    box_l: Tensor
    """(L,) box loss of each level."""
    chosen_l: Tensor
    """(L,) boxes that chose each level."""
    positives: Tensor
    """Scalar: locations that are positive after selection."""
    negatives: Tensor
    """Scalar: background locations."""
    right: Tensor
    """Scalar: positives whose highest score is their own class."""


def anchor_free_losses(
    outputs: FreeOutputs, boxes: Boxes, config: ObjectiveConfig
) -> tuple[FreeSums, Tensor]:
    """Compute the losses as MMDetection 3.3's FSAFHead does, with every shape fixed.

    Returns the sums, and (B, G) int64, the level that each box chose; -1 if it has no positive location.
    """
    logits_bcp, distances_b4p, points = outputs.flat()
    sizes = points.level_sizes
    assigned = assign(points.level_shapes, boxes, logits_bcp.shape[1], config)
    positive_bp, box_bp = assigned.positive_bp, assigned.box_bp

    other_bp, own_bp = focal_losses(
        logits_bcp, assigned.label_bp, positive_bp, assigned.counts_bcp, config.alpha, config.gamma
    )

    # Locations that learn no box get their own prediction as target, so that loss and gradient are finite.
    predicted_b4p = decode_boxes(distances_b4p.clamp(min=MIN_DISTANCE), points)
    target_b4p = torch.gather(boxes.xyxy.mT, 2, box_bp[:, None, :].expand(-1, 4, -1))
    target_b4p = torch.where(positive_bp[:, None, :], target_b4p, predicted_b4p.detach())
    box_loss_bp = torch.where(positive_bp, box_loss(predicted_b4p, target_b4p, config.box_loss), 0.0)

    with torch.no_grad():
        total_bp = other_bp + own_bp + box_loss_bp
        losses_bgl = level_losses(total_bp, positive_bp, box_bp, sizes, boxes.xyxy.shape[1])
        if config.level_choice == "at_least_size":
            losses_bgl = without_lower_levels(losses_bgl, levels_by_size(boxes.xyxy, len(sizes)))
        level_bg, has_level_bg = select_levels(losses_bgl)
        if config.level_choice == "size":
            level_bg = levels_by_size(boxes.xyxy, len(sizes))
            has_level_bg = losses_bgl.gather(2, level_bg[..., None])[..., 0] < torch.inf
        kept_bp = positive_bp & on_selected_level(level_bg, box_bp, sizes)
        own_logit_bp = torch.gather(logits_bcp, 1, assigned.label_bp[:, None, :])[:, 0]
        right_bp = (own_logit_bp >= logits_bcp.amax(1)) & kept_bp

    # On the levels that a box did not select, its locations have no box loss and no loss for its class.
    focal_bp = other_bp + torch.where(kept_bp, own_bp, 0.0)
    box_loss_bp = torch.where(kept_bp, box_loss_bp, 0.0)
    level_bg = torch.where(has_level_bg, level_bg, -1)
    level_l = torch.arange(len(sizes), device=level_bg.device)
    sums = FreeSums(
        cls_l=torch.stack([part.sum() for part in focal_bp.split(sizes, 1)]),
        box_l=torch.stack([part.sum() for part in box_loss_bp.split(sizes, 1)]),
        chosen_l=(level_bg[..., None] == level_l).float().sum((0, 1)),
        positives=kept_bp.float().sum(),
        negatives=assigned.negative_bp.float().sum(),
        right=right_bp.float().sum(),
    )
    return sums, level_bg
