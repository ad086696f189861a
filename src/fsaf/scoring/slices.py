"""Which boxes are found: by their size, their class, and how many are in their image.

Index letters: S slices, N images, B draws, G boxes of the annotations.
"""

from dataclasses import dataclass

import numpy as np

from fsaf.data.records import Records
from fsaf.scoring.analysis import SHOWN, SIZES, size_of
from fsaf.scoring.confidence import Interval, draw_images, interval
from fsaf.scoring.matching import Matches, Predictions, column

CROWDING = (("alone in its image", 1), ("2 to 5", 5), ("6 to 20", 20), ("over 20", None))
"""Name and largest number of boxes of an image."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Some of the boxes of a split.

    boxes, images: their number, and that of the images that they are in. found: share of them that is
    detected. interval: the range of this share on other images of the same kind; None for a single image.
    """

    name: str
    boxes: int
    images: int
    found: float
    interval: Interval | None


def found_boxes(
    records: Records, predictions: Predictions, matches: Matches, threshold: float = SHOWN
) -> dict[str, list[Slice]]:
    """Return the share of boxes that detections from score ``threshold`` on find, by kind of slice.

    matches: by class. Crowd regions do not count; slices without boxes are left out.
    """
    counts = np.array([len(image.boxes) for image in records.images], np.int64)
    image = np.repeat(np.arange(len(counts)), counts)
    real = ~column(records, "crowd")
    found = np.zeros(len(image), bool)
    found[matches.truth[matches.right & (predictions.score >= threshold)]] = True
    together = np.bincount(image[real], minlength=len(counts))[image]
    limits = [limit for _, limit in CROWDING if limit is not None]
    groups = {
        "Size": (SIZES, size_of(column(records, "boxes"))),
        "Boxes in the image": ([name for name, _ in CROWDING], np.searchsorted(limits, together)),
        "Class": (records.classes.names, column(records, "labels")),
    }
    members = [
        (kind, name, real & (at == i)) for kind, (names, at) in groups.items() for i, name in enumerate(names)
    ]
    members = [(kind, name, mine) for kind, name, mine in members if mine.any()]
    if not members:
        return {}
    of_image = [np.bincount(image[mine], minlength=len(counts)) for _, _, mine in members]
    found_of_image = [np.bincount(image[mine & found], minlength=len(counts)) for _, _, mine in members]
    weights = draw_images(len(counts))
    boxes_sb = np.array(of_image, np.float32) @ weights
    shares_sb = np.where(
        boxes_sb > 0, np.array(found_of_image, np.float32) @ weights / np.maximum(boxes_sb, 1), np.nan
    )
    slices: dict[str, list[Slice]] = {}
    for (kind, name, mine), per_image, shares in zip(members, of_image, shares_sb, strict=True):
        images, share = int((per_image > 0).sum()), float(found[mine].mean())
        ends = interval(shares, share) if images > 1 else None
        slices.setdefault(kind, []).append(
            Slice(
                name=name,
                boxes=int(mine.sum()),
                images=images,
                found=share,
                interval=ends and (max(ends[0], 0.0), min(ends[1], 1.0)),
            )
        )
    return slices
