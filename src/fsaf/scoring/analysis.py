"""Right and wrong predictions of a split, box by box, at an IoU of 0.5.

Index letters: P predictions, G boxes of the annotations, C classes, L levels (P3 to P7).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fsaf.boxes import area, intersection
from fsaf.data.records import Records
from fsaf.errors import DataError
from fsaf.scoring.metrics import LIMITS

IOU = 0.5
"""A detection is right if it overlaps its box at least this much."""
SHOWN = 0.3
"""Score threshold of parts of the report that need one: confusion, worst images."""
RECALLS = np.linspace(0, 1, 101)
LEVELS = ("P3", "P4", "P5", "P6", "P7")
SIZES = ("small", "medium", "large")
_EDGES = (32.0**2, 96.0**2)


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predictions as columns, by image id and within an image best first."""

    image: np.ndarray
    """(P,) int64: image id."""
    label: np.ndarray
    """(P,) int64, 0..C-1."""
    score: np.ndarray
    """(P,) float64."""
    boxes: np.ndarray
    """(P, 4) float64 x1, y1, x2, y2 in pixels of the image file."""
    level: np.ndarray
    """(P,) int64: 0 for P3; -1 if unknown."""

    def pick(self, rows: np.ndarray) -> "Predictions":
        """Return the predictions at ``rows``: positions, or a mask."""
        return Predictions(**{name: column[rows] for name, column in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Matches:
    """The box that each prediction matches."""

    truth: np.ndarray
    """(P,) int64: position of the box among all boxes of the split, image after image; -1 for none."""
    ignored: np.ndarray
    """(P,) bool: in a crowd region, so neither right nor wrong."""

    @property
    def right(self) -> np.ndarray:
        """Return which predictions match a box: (P,) bool."""
        return self.truth >= 0


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Precision over recall of a class."""

    name: str
    precision: np.ndarray
    """(101,) at ``RECALLS``, as COCO interpolates: the highest at that recall or a higher one."""
    best_f1: float
    best_score: float
    """The score threshold with the highest F1."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Predictions with similar scores."""

    count: int
    score: float
    """Their mean score."""
    right: float
    """Share of right ones."""


def tabulate(records: Records, predictions: Sequence[Mapping[str, Any]]) -> Predictions:
    """Turn predictions in COCO's results format into columns; keep the best 100 of each image and class.

    COCO's metrics count as many. Raises DataError if they are not in that format, or are of other images or
    categories than ``records``.
    """
    labels = {id_: label for label, id_ in enumerate(records.classes.ids)}
    images = {image.id for image in records.images}
    try:
        table = Predictions(
            image=np.array([each["image_id"] for each in predictions], np.int64),
            label=np.array([labels.get(each["category_id"], -1) for each in predictions], np.int64),
            score=np.array([each["score"] for each in predictions], np.float64),
            boxes=np.array([each["bbox"] for each in predictions], np.float64).reshape(len(predictions), 4),
            level=np.array([each.get("level", 2) for each in predictions], np.int64) - 3,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"the predictions are not in COCO's results format ({error!r})") from error
    if not (np.isfinite(table.score).all() and np.isfinite(table.boxes).all()):
        raise DataError("the predictions have scores or boxes that are not finite")
    if (table.label < 0).any() or not images.issuperset(table.image.tolist()):
        raise DataError(f"the predictions are of other images or categories than {records.source} lists")
    table.boxes[:, 2:] += table.boxes[:, :2]
    order = np.lexsort((-table.score, table.label, table.image))
    group = np.stack((table.image, table.label))[:, order]
    first = np.flatnonzero(np.r_[True, (group[:, 1:] != group[:, :-1]).any(0)]) if len(order) else order
    rank = np.arange(len(order)) - np.repeat(first, np.diff(np.r_[first, len(order)]))
    kept = np.sort(order[rank < LIMITS[-1]])  # in the order given, which breaks ties
    return table.pick(kept[np.lexsort((-table.score[kept], table.image[kept]))])


def match_boxes(records: Records, predictions: Predictions, *, by_class: bool = True) -> Matches:
    """Match each prediction, best first, with the free box that it overlaps most, by at least ``IOU``.

    by_class: match only boxes of its own class, as COCO's metrics do; else boxes of any class.
    """
    truth, ignored = np.full(len(predictions.score), -1), np.zeros(len(predictions.score), bool)
    start = 0
    for image in records.images:
        low, high = np.searchsorted(predictions.image, (image.id, image.id + 1))
        boxes = image.boxes.astype(np.float64)
        iou = overlaps(predictions.boxes[low:high], boxes, image.crowd)
        if by_class:
            iou[predictions.label[low:high, None] != image.labels] = 0
        free = ~image.crowd
        for row in np.flatnonzero((iou >= IOU).any(1)):
            mine = np.where(free, iou[row], 0)
            best = len(mine) - 1 - int(mine[::-1].argmax())  # of ties the last, as in COCO's code
            if mine[best] >= IOU:
                free[best] = False
                truth[low + row] = start + best
            else:
                ignored[low + row] = (iou[row][image.crowd] >= IOU).any()
        start += len(boxes)
    return Matches(truth=truth, ignored=ignored)


def overlaps(boxes: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Return the IoU (P, G) of boxes (P, 4) and (G, 4); for crowd regions, the share of the box inside."""
    ours, known = boxes.T[..., None].astype(np.float64), truth.T[:, None].astype(np.float64)
    shared, own = intersection(ours, known), area(ours)
    return shared / np.maximum(np.where(crowd, own, own + area(known) - shared), 1e-12)


def precision_recall(records: Records, predictions: Predictions, matches: Matches) -> list[Curve]:
    """Return the curve of each class that has boxes; ``matches`` are by class."""
    boxes = np.bincount(
        _column(records, "labels")[~_column(records, "crowd")], minlength=len(records.classes)
    )
    curves = []
    for label, name in enumerate(records.classes.names):
        if not boxes[label]:
            continue
        rows = np.flatnonzero((predictions.label == label) & ~matches.ignored)
        rows = rows[np.argsort(-predictions.score[rows], kind="stable")]
        right = np.cumsum(matches.right[rows])
        count = np.arange(1, len(rows) + 1)
        f1 = np.r_[2 * right / (count + boxes[label]), 0]
        best = int(f1.argmax())
        highest = np.r_[np.maximum.accumulate((right / count)[::-1])[::-1], 0]
        precision = highest[np.searchsorted(right / boxes[label], RECALLS)]
        score = float(predictions.score[rows[best]]) if best < len(rows) else 0.0
        curves.append(Curve(name=name, precision=precision, best_f1=float(f1[best]), best_score=score))
    return curves


def confusion(records: Records, predictions: Predictions, threshold: float = SHOWN) -> np.ndarray:
    """Count predictions by annotated and predicted class, (C + 1, C + 1), with the background last.

    Counts predictions from ``threshold`` on, each with the box that it overlaps most, of any class. Missed
    boxes are in the last column, predictions without a free box in the last row.
    """
    predictions = predictions.pick(predictions.score >= threshold)
    matches = match_boxes(records, predictions, by_class=False)
    labels, crowd = _column(records, "labels"), _column(records, "crowd")
    background = len(records.classes)
    matrix = np.zeros((background + 1, background + 1), np.int64)
    right, wrong = matches.right, ~matches.right & ~matches.ignored
    np.add.at(matrix, (labels[matches.truth[right]], predictions.label[right]), 1)
    np.add.at(matrix, (background, predictions.label[wrong]), 1)
    missed = ~crowd
    missed[matches.truth[right]] = False
    np.add.at(matrix, (labels[missed], background), 1)
    return matrix


def calibration(predictions: Predictions, matches: Matches, bins: int = 10) -> list[Bin]:
    """Return how often predictions with similar scores are right, in ``bins`` equal ranges from 0 to 1.

    Ranges without predictions are left out. matches: by class.
    """
    counts = ~matches.ignored
    score, right = predictions.score[counts], matches.right[counts]
    at = np.minimum((score * bins).astype(np.int64), bins - 1)
    return [
        Bin(count=int(mine.sum()), score=float(score[mine].mean()), right=float(right[mine].mean()))
        for i in range(bins)
        if (mine := at == i).any()
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: the mean distance of score and share of right predictions."""
    return sum(each.count * abs(each.score - each.right) for each in bins) / max(
        sum(each.count for each in bins), 1
    )


def level_counts(
    predictions: Predictions, classes: int, threshold: float = SHOWN
) -> tuple[np.ndarray, np.ndarray] | None:
    """Count predictions from ``threshold`` on by level: (C, L) by class and (3, L) by size of the box.

    Sizes are ``SIZES``. Returns None if some predictions have no level.
    """
    predictions = predictions.pick(predictions.score >= threshold)
    if not len(predictions.level) or not ((predictions.level >= 0) & (predictions.level < len(LEVELS))).all():
        return None
    by_class = np.zeros((classes, len(LEVELS)), np.int64)
    by_size = np.zeros((len(SIZES), len(LEVELS)), np.int64)
    np.add.at(by_class, (predictions.label, predictions.level), 1)
    np.add.at(by_size, (size_of(predictions.boxes), predictions.level), 1)
    return by_class, by_size


def size_of(boxes: np.ndarray) -> np.ndarray:
    """Return the position in ``SIZES`` of boxes (n, 4): under 32 x 32 pixels, up to 96 x 96, and larger."""
    return np.searchsorted(_EDGES, area(boxes.astype(np.float64).T), side="right")


def mistakes(
    records: Records, predictions: Predictions, matches: Matches, threshold: float = SHOWN
) -> tuple[np.ndarray, np.ndarray]:
    """Count wrong predictions and missed boxes of each image, from score ``threshold`` on.

    matches: by class.
    """
    shown = predictions.score >= threshold
    position = {image.id: i for i, image in enumerate(records.images)}
    wrong = shown & ~matches.right & ~matches.ignored
    at = [position[id_] for id_ in predictions.image[wrong].tolist()]
    false = np.bincount(np.array(at, np.int64), minlength=len(records.images))
    boxes = np.repeat(np.arange(len(records.images)), [len(image.boxes) for image in records.images])
    missed = ~_column(records, "crowd")
    missed[matches.truth[shown & matches.right]] = False
    return false, np.bincount(boxes[missed], minlength=len(records.images))


def _column(records: Records, name: str) -> np.ndarray:
    """Return labels or crowd flags of all boxes, image after image."""
    return np.concatenate([getattr(image, name) for image in records.images])
