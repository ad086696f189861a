"""Online feature selection: each box learns on the level where its loss is smallest (FSAF section 3.3).

Shapes: B batch, G padded boxes of an image, L levels, P all locations.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from fsaf.boxes import area


def level_losses(
    loss_bp: Tensor, positive_bp: Tensor, box_bp: Tensor, level_sizes: Sequence[int], num_boxes: int
) -> Tensor:
    """Compute the mean loss of each box's positives on each level, (B, G, L); infinite without positives.

    loss_bp: (B, P) float32, classification plus box loss of each location.
    """
    weight_bp = positive_bp.float()
    means = []
    for loss, weight, box in zip(
        (loss_bp * weight_bp).split(list(level_sizes), 1),
        weight_bp.split(list(level_sizes), 1),
        box_bp.split(list(level_sizes), 1),
        strict=True,
    ):
        zero = loss.new_zeros(loss.shape[0], num_boxes)
        total = zero.scatter_add(1, box, loss)
        count = zero.scatter_add(1, box, weight)
        means.append(torch.where(count > 0, total / count.clamp(min=1), torch.inf))
    return torch.stack(means, 2)


def select_levels(losses_bgl: Tensor) -> tuple[Tensor, Tensor]:
    """Select the level of smallest loss: (B, G) int64, and (B, G) bool, False for a box without positives."""
    best, level = (-losses_bgl).max(2)  # Ascend's graph compiler lacks min with indices
    return level, best > -torch.inf


def levels_by_size(boxes_bg4: Tensor, num_levels: int) -> Tensor:
    """Choose the level by box size alone, (B, G) int64: P_k with k = floor(5 + log2(sqrt(w h) / 224)).

    This is the rule of feature pyramids (Lin et al. 2017), the paper's baseline for online selection.
    """
    area_bg = area(boxes_bg4.unbind(-1))
    starts = [float((112 << i) ** 2) for i in range(num_levels - 1)]  # the areas where P4, P5, ... begin
    return torch.stack([(area_bg >= start).int() for start in starts]).sum(0, dtype=torch.int32).long()


def without_lower_levels(losses_bgl: Tensor, level_bg: Tensor) -> Tensor:
    """Return the losses (B, G, L), infinite on levels below ``level_bg`` (B, G).

    A box that has no positives from its level up keeps all its losses.
    """
    level_l = torch.arange(losses_bgl.shape[2], device=losses_bgl.device)
    upper_bgl = torch.where(level_l < level_bg[..., None], torch.inf, losses_bgl)
    has_upper_bg1 = upper_bgl.amin(2, keepdim=True) < torch.inf
    return torch.where(has_upper_bg1, upper_bgl, losses_bgl)


def on_selected_level(level_bg: Tensor, box_bp: Tensor, level_sizes: Sequence[int]) -> Tensor:
    """Return (B, P) bool: True if the location lies on the level that its box selected."""
    chosen_bp = torch.gather(level_bg, 1, box_bp)
    own_p = torch.cat([chosen_bp.new_full((size,), level) for level, size in enumerate(level_sizes)])
    return chosen_bp == own_p
