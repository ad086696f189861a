"""Keys of the section ``objective``: what training minimises."""

from dataclasses import dataclass
from typing import Literal

from fsaf.config.fields import check, key


@dataclass(kw_only=True)
class ObjectiveConfig:
    """Losses that training minimises."""

    pos_scale: float = key(
        0.2, "A box scaled about its centre by this is its core. Locations there are positive."
    )
    neg_scale: float = key(
        0.2,
        "A box scaled by this is its shadow. Locations there but not in the core are ignored (the paper: "
        "0.5).",
    )
    foreground_dominate: bool = key(
        False, "Keep a location positive if it is also in the shadow of another box of its class."
    )
    alpha: float = key(0.25, "Focal loss: weight of positives.")
    gamma: float = key(2.0, "Focal loss: focusing exponent. Higher values discount easy locations more.")
    normalise: Literal["process", "mean"] = key(
        "process",
        "With several processes, divide the loss by the positives of the process itself, or by their mean "
        "over processes.",
    )
    level_choice: Literal["online", "size", "at_least_size"] = key(
        "online",
        "Pyramid level that an object trains on: `online` is the one with the smallest loss (the method), "
        "`size` depends on the size of the box (the paper's baseline), `at_least_size` is the one with the "
        "smallest loss among that of `size` and those above it.",
    )
    online_after: int = key(
        0,
        "With `level_choice` `online` or `at_least_size`: choose by size in so many steps at the start, "
        "before losses of levels say anything.",
    )
    box_loss: Literal["iou", "giou", "ciou"] = key(
        "iou", "Box loss of the anchor-free branch: -log(IoU), generalised IoU or complete IoU."
    )
    anchor_box_loss: Literal["smooth_l1", "l1", "iou", "giou", "ciou"] = key(
        "smooth_l1",
        "Box loss of the anchor-based branch: smooth L1 or L1 of the deltas, or a loss of the boxes as "
        "above.",
    )
    anchor_free_weight: float = key(
        0.5, "Weight of the anchor-free losses relative to the anchor-based ones (the paper's lambda)."
    )

    def __post_init__(self) -> None:
        for name in ("pos_scale", "neg_scale"):
            check(0 < getattr(self, name) <= 1, f"objective.{name}", getattr(self, name), "in (0, 1]")
        check(self.neg_scale >= self.pos_scale, "objective.neg_scale", self.neg_scale, "at least pos_scale")
        check(0 <= self.alpha <= 1, "objective.alpha", self.alpha, "between 0 and 1")
        # Between 0 and 1 the gradient at a perfect score is infinite.
        check(self.gamma == 0 or self.gamma >= 1, "objective.gamma", self.gamma, "0, or 1 or more")
        check(self.online_after >= 0, "objective.online_after", self.online_after, "0 or more")
        useful = self.online_after == 0 or self.level_choice != "size"
        check(useful, "objective.online_after", self.online_after, "0 with level_choice size")
        weight = self.anchor_free_weight
        check(weight > 0, "objective.anchor_free_weight", weight, "above 0")
