"""Keys of the section ``predict``: from raw outputs to detections."""

from dataclasses import dataclass

from fsaf.config import limits
from fsaf.config.data import MULTIPLE
from fsaf.config.fields import check, key

SHOWN_SCORE = 0.3
"""Score above which detections are shown to people. COCO's metrics need those of lower score too."""


@dataclass(kw_only=True)
class PredictConfig:
    """From raw outputs to detections."""

    score_threshold: float = key(0.05, "Keep detections with a higher score than this.")
    candidates: int = key(1000, "Highest scored (location, class) pairs that each level passes to NMS.")
    nms_iou: float = key(0.5, "IoU above which NMS drops the lower scored of two boxes of a class.")
    max_detections: int = key(
        100, "Maximum number of detections per image, or per tile if `predict.tile` is set."
    )
    classes: list[str | int] | None = key(
        None,
        "Detect these classes only, as in `[cat, dog]`: names, or numbers from 0 in the checkpoint's order.",
    )
    class_agnostic: bool = key(
        False, "NMS drops the lower scored of two overlapping boxes also if their classes differ."
    )
    anchor_weight: float = key(
        1.0,
        "With both branches, multiply the scores of the anchor-based branch by this before they compete; 1"
        " keeps them.",
    )
    scales: list[float] = key(
        [1.0],
        "Test-time augmentation: detect at each of these sizes (factors on `data.short_side` and "
        "`data.long_side`) and merge. Each size takes its own pass.",
    )
    flip: bool = key(
        False,
        "Detect on the mirrored image too, and merge. Not for classes that change when mirrored, such as "
        "letters.",
    )
    tile: int | None = key(
        None, "Cut images larger than this into square tiles of this side (pixels) and detect on these too."
    )
    tile_overlap: float = key(
        0.2,
        "Overlap of neighbouring tiles, as a share of their side. Should be at least the size of most "
        "objects.",
    )

    def __post_init__(self) -> None:
        check(
            1 <= len(self.scales) <= limits.SCALES and all(0 < scale <= 8 for scale in self.scales),
            "predict.scales",
            self.scales[: limits.SCALES],
            f"1 to {limits.SCALES} factors above 0 and at most 8",
        )
        check(
            self.tile is None or MULTIPLE <= self.tile <= limits.SIDE,
            "predict.tile",
            self.tile,
            f"between {MULTIPLE} and {limits.SIDE} pixels",
        )
        check(
            self.classes is None
            or (len(self.classes) > 0 and all(type(item) in (str, int) for item in self.classes)),
            "predict.classes",
            self.classes,
            "a list of names or numbers of classes, such as [cat, dog]",
        )
        overlap = self.tile_overlap
        check(0 <= overlap <= 0.9, "predict.tile_overlap", overlap, "between 0 and 0.9")
        check(0 <= self.score_threshold < 1, "predict.score_threshold", self.score_threshold, "in [0, 1)")
        for name in ("nms_iou", "anchor_weight"):
            check(0 < getattr(self, name) <= 1, f"predict.{name}", getattr(self, name), "in (0, 1]")
        for name in ("candidates", "max_detections"):
            value, most = getattr(self, name), limits.DETECTIONS
            check(1 <= value <= most, f"predict.{name}", value, f"between 1 and {most}")

    def is_plain(self) -> bool:
        """Return True if each image is looked at once, at one size and unmirrored."""
        return self.scales == [1.0] and not self.flip and self.tile is None
