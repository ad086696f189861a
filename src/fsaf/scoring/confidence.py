"""How much AP depends on which images a split happens to hold, by bootstrap over its images.

A draw takes as many images as there are, with replacement, and AP is computed on these, exactly. Index
letters: B draws, N images, T IoU thresholds, D detections of a class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fsaf.data.records import Records
from fsaf.scoring.matching import Matches, Predictions, column, match_at

IOUS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""COCO's thresholds."""
DRAWS = 1000
LEVEL = 0.95


Interval = tuple[float, float]
"""The range of ``LEVEL`` of all draws."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """AP and AP50 of each draw, (B,); NaN for a draw without any box."""

    ap: np.ndarray
    ap50: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Difference:
    """AP of a second detector minus that of a first one, on the same images."""

    ap: float
    interval: Interval

    @property
    def is_clear(self) -> bool:
        """Return True if the interval leaves out 0: the difference is larger than chance."""
        return self.interval[0] > 0 or self.interval[1] < 0


def intervals(
    records: Records, predictions: Predictions, metrics: Mapping[str, Any], draws: int = DRAWS
) -> dict[str, Interval]:
    """Return the intervals of AP and AP50; none if these are undefined.

    metrics: of the same predictions, as ``coco_metrics`` returns them.
    """
    if metrics["AP"] is None:
        return {}
    drawn = bootstrap(records, predictions, draws)
    ranges = {"AP": interval(drawn.ap, metrics["AP"]), "AP50": interval(drawn.ap50, metrics["AP50"])}
    return {name: (max(low, 0.0), min(high, 1.0)) for name, (low, high) in ranges.items()}


def difference(
    records: Records,
    first: tuple[Predictions, Mapping[str, Any]],
    second: tuple[Predictions, Mapping[str, Any]],
    draws: int = DRAWS,
) -> Difference | None:
    """Return the difference of two detectors by their predictions and metrics; None if AP is undefined."""
    before, after = first[1]["AP"], second[1]["AP"]
    if before is None or after is None:
        return None
    change = bootstrap(records, second[0], draws).ap - bootstrap(records, first[0], draws).ap
    return Difference(ap=after - before, interval=interval(change, after - before))


def bootstrap(records: Records, predictions: Predictions, draws: int = DRAWS, seed: int = 0) -> Drawn:
    """Return the figures of predictions on draws of the images of a split.

    Equal seeds draw equal images, so that the figures of two detectors can be subtracted.
    """
    weights = draw_images(len(records.images), draws, seed)
    position = {image.id: i for i, image in enumerate(records.images)}
    image = np.array([position[id_] for id_ in predictions.image.tolist()], np.int64)
    matches = match_at(records, predictions, IOUS)
    boxes_of = np.repeat(np.arange(len(records.images)), [len(each.boxes) for each in records.images])
    labels, real = column(records, "labels"), ~column(records, "crowd")
    total, classes = np.zeros((len(IOUS), draws)), np.zeros(draws)
    for label in range(len(records.classes)):
        boxes = np.zeros(draws, np.float32)
        for row in boxes_of[real & (labels == label)]:
            boxes += weights[row]
        rows = np.flatnonzero(predictions.label == label)
        rows = rows[np.argsort(-predictions.score[rows], kind="stable")]
        total += _average_precision(rows, image, matches, weights, boxes)
        classes += boxes > 0
    figures = np.where(classes > 0, total / np.maximum(classes, 1), np.nan)
    return Drawn(ap=figures.mean(0), ap50=figures[0])


def draw_images(images: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Return how often each draw takes each image, (N, B) float32."""
    rng = np.random.default_rng(seed)
    taken = rng.integers(0, images, (draws, images)) + images * np.arange(draws)[:, None]
    counts = np.bincount(taken.reshape(-1), minlength=draws * images).reshape(draws, images)
    return np.ascontiguousarray(counts.T, np.float32)


def _average_precision(
    rows: np.ndarray, image: np.ndarray, matches: Sequence[Matches], weights: np.ndarray, boxes: np.ndarray
) -> np.ndarray:
    """Return the AP of one class by threshold and draw, (T, B), as COCO's code interpolates it.

    rows: (D,) its predictions, best first. boxes: (B,) its boxes in each draw; AP is 0 without any.
    """
    result = np.zeros((len(matches), weights.shape[1]))
    some = np.flatnonzero(np.any([match.truth[rows] >= 0 for match in matches], axis=0))
    rows = (
        rows[: some[-1] + 1] if len(some) else rows[:0]
    )  # predictions after the last right one change nothing
    scale = 100 / np.maximum(boxes, 1)
    seen, seen_for = np.empty(0), np.empty(0, bool)
    for i, match in enumerate(matches):
        counts = ~match.ignored[rows]
        at = rows[counts]
        right = match.truth[at] >= 0
        if not right.any():
            continue
        if not np.array_equal(counts, seen_for):  # thresholds differ here only if there are crowd regions
            seen, seen_for = np.maximum(_cumulate(np.add, weights[image[at]]), 1), counts
        # Of right detections in a row, precision is highest at the last. From the worst to the best:
        ends = np.flatnonzero(right & ~np.r_[right[1:], False])[::-1]
        found = _cumulate(np.add, weights[image[at[right]]])[np.cumsum(right)[ends] - 1]
        precision = _cumulate(np.maximum, found / seen[ends])
        # A recall of r reaches the points 0.01, 0.02 ... up to r; the point 0 has the highest precision.
        points = np.floor(found * scale + 1e-4)
        points[:-1] -= points[1:]
        result[i] = ((points * precision).sum(0) + precision[-1]) / 101
    return result


def _cumulate(operation: np.ufunc, values: np.ndarray) -> np.ndarray:
    """Accumulate the rows of ``values`` in place; row by row, which is faster than numpy's ``accumulate``."""
    for before, row in pairwise(values):
        operation(row, before, out=row)
    return values


def interval(values: np.ndarray, estimate: float) -> Interval:
    """Return the range of the middle ``LEVEL`` of values, moved so that their mean is ``estimate``.

    Draws repeat images, which makes AP a little too high in all of them.
    """
    values = values[np.isfinite(values)]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(values, (tail, 1 - tail)) + estimate - values.mean()
    return float(low), float(high)
