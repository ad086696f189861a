"""Right and wrong predictions of a split, box by box, at an IoU of 0.5.

Index letters: P predictions, G boxes of the annotations, C classes, L levels (P3 to P7).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsaf.boxes import area
from fsaf.data.records import Records
from fsaf.scoring.matching import Matches, Predictions, column, match_boxes

SHOWN = 0.3
"""Score threshold of parts of the report that need one: confusion, worst images."""
RECALLS = np.linspace(0, 1, 101)
LEVELS = ("P3", "P4", "P5", "P6", "P7")
SIZES = ("small", "medium", "large")
_EDGES = (32.0**2, 96.0**2)


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


def precision_recall(records: Records, predictions: Predictions, matches: Matches) -> list[Curve]:
    """Return the curve of each class that has boxes; ``matches`` are by class."""
    boxes = np.bincount(column(records, "labels")[~column(records, "crowd")], minlength=len(records.classes))
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
    labels, crowd = column(records, "labels"), column(records, "crowd")
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
    np.add.at(by_size, (size_of(area(predictions.boxes.T)), predictions.level), 1)
    return by_class, by_size


def size_of(areas: np.ndarray) -> np.ndarray:
    """Return the position in ``SIZES`` of areas (n,): under 32 x 32 pixels, up to 96 x 96, and larger."""
    return np.searchsorted(_EDGES, areas, side="right")


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
    missed = ~column(records, "crowd")
    missed[matches.truth[shown & matches.right]] = False
    return false, np.bincount(boxes[missed], minlength=len(records.images))
