"""Which boxes are found, and AP: by their size, their class, and how many are in their image.

Index letters: S slices, N images, B draws, G boxes of the annotations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsaf.boxes import area
from fsaf.data.records import Records, ground_truth
from fsaf.scoring.analysis import SHOWN, SIZES, size_of
from fsaf.scoring.confidence import Interval, draw_images, interval
from fsaf.scoring.matching import Matches, Predictions, column
from fsaf.scoring.metrics import coco_metrics

CROWDING = (("alone in its image", 1), ("2 to 5", 5), ("6 to 20", 20), ("over 20", None))
"""Name and largest number of boxes of an image."""
SIZE, CROWDED, CLASS = "Size", "Boxes in the image", "Class"
"""Kinds of slices."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Some of the boxes of a split.

    boxes, images: their number, and that of the images that they are in. found: share of them that is
    detected. interval: the range of this share on other images of the same kind; None for a single image.
    ap: of the slice (``slice_aps``).
    """

    name: str
    boxes: int
    images: int
    found: float
    interval: Interval | None
    ap: float | None


def found_boxes(
    records: Records,
    results: Sequence[Mapping[str, Any]],
    predictions: Predictions,
    matches: Matches,
    threshold: float = SHOWN,
) -> dict[str, list[Slice]]:
    """Return the share of boxes that detections from score ``threshold`` on find, and AP, by kind of slice.

    results: the predictions in COCO's results format. matches: by class. Crowd regions do not count; slices
    without boxes are left out.
    """
    counts = np.array([len(image.boxes) for image in records.images], np.int64)
    image = np.repeat(np.arange(len(counts)), counts)
    real = ~column(records, "crowd")
    found = np.zeros(len(image), bool)
    found[matches.truth[matches.right & (predictions.score >= threshold)]] = True
    crowding = _crowding(records)
    groups = {
        SIZE: (SIZES, size_of(_areas(records))),
        CROWDED: ([name for name, _ in CROWDING], crowding[image]),
        CLASS: (records.classes.names, column(records, "labels")),
    }
    members = [
        (kind, i, name, real & (at == i))
        for kind, (names, at) in groups.items()
        for i, name in enumerate(names)
    ]
    members = [member for member in members if member[-1].any()]
    if not members:
        return {}
    aps = slice_aps(records, results)
    of_image = [np.bincount(image[mine], minlength=len(counts)) for *_, mine in members]
    found_of_image = [np.bincount(image[mine & found], minlength=len(counts)) for *_, mine in members]
    weights = draw_images(len(counts))
    boxes_sb = np.array(of_image, np.float32) @ weights
    shares_sb = np.where(
        boxes_sb > 0, np.array(found_of_image, np.float32) @ weights / np.maximum(boxes_sb, 1), np.nan
    )
    slices: dict[str, list[Slice]] = {}
    for (kind, i, name, mine), per_image, shares in zip(members, of_image, shares_sb, strict=True):
        images, share = int((per_image > 0).sum()), float(found[mine].mean())
        ends = interval(shares, share) if images > 1 else None
        slices.setdefault(kind, []).append(
            Slice(
                name=name,
                boxes=int(mine.sum()),
                images=images,
                found=share,
                interval=ends and (max(ends[0], 0.0), min(ends[1], 1.0)),
                ap=aps[kind][i],
            )
        )
    return slices


def slice_aps(records: Records, results: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Return COCO's AP (IoU 0.50 to 0.95) of each slice by kind; None where no object is.

    Which detections count: of a size, by COCO's rule, objects of other sizes are ignored, and so are
    unmatched detections of other sizes. Of a class, its own detections. For the number of boxes in the
    image, images are grouped by it, and AP is that of the images of a group with all their detections.
    results: predictions in COCO's results format.
    """
    truth = ground_truth(records)
    whole = coco_metrics(truth, results)
    of_class = iter(whole["per_class"].values())  # in the order of category ids
    by_id = {id_: next(of_class)["AP"] for id_ in sorted(records.classes.ids)}
    crowding = _crowding(records)
    ids = [
        [image.id for image, group in zip(records.images, crowding, strict=True) if group == i]
        for i in range(len(CROWDING))
    ]
    return {
        SIZE: [whole["AP_small"], whole["AP_medium"], whole["AP_large"]],
        CROWDED: [coco_metrics(truth, results, mine)["AP"] if mine else None for mine in ids],
        CLASS: [by_id[id_] for id_ in records.classes.ids],
    }


def _crowding(records: Records) -> np.ndarray:
    """Return the position in ``CROWDING`` of each image, (N,); -1 for images without boxes."""
    limits = [limit for _, limit in CROWDING if limit is not None]
    boxes = np.array([(~image.crowd).sum() for image in records.images], np.int64)
    return np.where(boxes > 0, np.searchsorted(limits, boxes), -1)


def _areas(records: Records) -> np.ndarray:
    """Return the area of each box, (G,), that COCO's metrics take: that of the annotation if it has one."""
    own: np.ndarray = area(column(records, "boxes").astype(np.float64).T)
    if not records.scored_unclipped or records.table is None:
        return own
    given = dict(zip(records.table.item, records.table.area, strict=True))
    annotated = np.array([given[item] for item in column(records, "items").tolist()])
    return np.where(np.isnan(annotated), own, annotated)
