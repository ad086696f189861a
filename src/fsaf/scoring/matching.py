"""Predictions and the boxes that they match, as COCO's evaluation code matches them.

Index letters: P predictions, G boxes of the annotations, T IoU thresholds, M pairs of a prediction and a box.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fsaf.boxes import area, intersection
from fsaf.data.records import Records
from fsaf.errors import DataError
from fsaf.scoring.metrics import LIMITS

IOU = 0.5
"""A detection is right if it overlaps its box at least this much."""


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


def match_boxes(
    records: Records, predictions: Predictions, iou: float = IOU, *, by_class: bool = True
) -> Matches:
    """Match each prediction, best first, with the free box that it overlaps most, by at least ``iou``.

    by_class: match only boxes of its own class, as COCO's metrics do; else boxes of any class.
    """
    return match_at(records, predictions, [iou], by_class=by_class)[0]


def match_at(
    records: Records, predictions: Predictions, ious: Sequence[float], *, by_class: bool = True
) -> list[Matches]:
    """Return ``match_boxes`` for each of several thresholds.

    All images take their first prediction together, then their second, and so on.
    """
    pairs = _Pairs(records, predictions, by_class)
    wanted = np.array(ious)[:, None]
    truth = np.full((len(ious), len(predictions.score)), -1)
    ignored = np.zeros((len(ious), len(predictions.score)), bool)
    free = np.ones((len(ious), pairs.boxes), bool)
    for rows, starts, lengths, at in pairs.turns(crowd=False):
        iou = np.where(free[:, pairs.box[at]], pairs.iou[at], 0)
        best = np.maximum.reduceat(iou, starts, axis=1)
        last = np.where(iou == np.repeat(best, lengths, axis=1), np.arange(len(at)), -1)
        box = pairs.box[at[np.maximum.reduceat(last, starts, axis=1)]]  # of ties the last, as in COCO's code
        which, row = np.nonzero(best >= wanted)
        truth[which, rows[row]] = box[which, row]
        free[which, box[which, row]] = False
    for rows, starts, _, at in pairs.turns(crowd=True):
        inside = np.maximum.reduceat(pairs.iou[at], starts) >= wanted
        ignored[:, rows] |= inside & (truth[:, rows] < 0)
    return [Matches(truth=truth[i], ignored=ignored[i]) for i in range(len(ious))]


class _Pairs:
    """Every prediction with every box of its image, or of its image and class, that it overlaps.

    prediction, box: (M,) positions, by prediction, then by box. iou: (M,). boxes: the number of all boxes.
    """

    def __init__(self, records: Records, predictions: Predictions, by_class: bool) -> None:
        image = np.repeat([each.id for each in records.images], [len(each.boxes) for each in records.images])
        label = column(records, "labels") if by_class else np.zeros(len(image), np.int64)
        ours = predictions.label if by_class else np.zeros(len(predictions.label), np.int64)
        order = np.lexsort((label, image))  # stable: boxes of a group stay in their order
        keys = np.stack((image, label), 1)[order]
        known, first, count = np.unique(keys, axis=0, return_index=True, return_counts=True)
        group = _find(known, np.stack((predictions.image, ours), 1))
        rows = np.flatnonzero(group >= 0)
        many = count[group[rows]]
        self.boxes = len(image)
        self.prediction = np.repeat(rows, many)
        within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
        self.box = order[np.repeat(first[group[rows]], many) + within]
        crowd = column(records, "crowd")
        truth = np.concatenate([each.boxes for each in records.images]).astype(np.float64)
        self.iou = _pair_iou(predictions.boxes[self.prediction], truth[self.box], crowd[self.box])
        some = self.iou > 0
        self.prediction, self.box, self.iou = self.prediction[some], self.box[some], self.iou[some]
        self.crowd = crowd[self.box]
        self.group = group

    def turns(self, *, crowd: bool) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield rounds in which each group has at most one prediction, best first.

        Yields predictions (n,), where their pairs start (n,) and how many they are (n,), and pairs (m,).
        crowd: pairs with crowd regions, or those with all other boxes.
        """
        pairs = np.flatnonzero(self.crowd == crowd)
        if not len(pairs):
            return
        rows, start, count = np.unique(self.prediction[pairs], return_index=True, return_counts=True)
        turn = _rank(self.group[rows])
        order = np.argsort(turn, kind="stable")
        bounds = np.flatnonzero(np.r_[True, np.diff(turn[order]) > 0, True])
        for low, high in pairwise(bounds):
            mine = order[low:high]
            lengths = count[mine]
            starts = np.cumsum(lengths) - lengths
            at = np.repeat(start[mine] - starts, lengths) + np.arange(lengths.sum())
            yield rows[mine], starts, lengths, pairs[at]


def _find(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the position of each row of ``wanted`` (n, 2) in ``known`` (k, 2), which is sorted; else -1."""
    if not len(known):
        return np.full(len(wanted), -1)
    step = max(int(known[:, 1].max()), int(wanted[:, 1].max(initial=0))) + 1
    _, images = np.unique(np.r_[known[:, 0], wanted[:, 0]], return_inverse=True)
    keys = images * step + np.r_[known[:, 1], wanted[:, 1]]
    at = np.minimum(np.searchsorted(keys[: len(known)], keys[len(known) :]), len(known) - 1)
    return np.where(keys[at] == keys[len(known) :], at, -1)


def _rank(groups: np.ndarray) -> np.ndarray:
    """Return how many earlier entries of ``groups`` (n,) are equal to each."""
    order = np.argsort(groups, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0])
    rank = np.empty(len(groups), np.int64)
    rank[order] = np.arange(len(groups)) - np.repeat(first, np.diff(np.r_[first, len(groups)]))
    return rank


def _pair_iou(boxes: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """Return the IoU (M,) of boxes (M, 4) and (M, 4); for crowd regions, the share of the box inside."""
    shared, own = intersection(boxes.T, truth.T), area(boxes.T)
    return shared / np.maximum(np.where(crowd, own, own + area(truth.T) - shared), 1e-12)


def column(records: Records, name: str) -> np.ndarray:
    """Return labels or crowd flags of all boxes, image after image."""
    return np.concatenate([getattr(image, name) for image in records.images])
