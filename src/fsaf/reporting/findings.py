"""The sections of a report about the predictions of a run and about its data, ready to be shown.

They need the annotations. If these are gone, the sections are left out, and a note says so.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from fsaf.boxes import area
from fsaf.config import DataConfig
from fsaf.data.readers.splits import open_split
from fsaf.data.records import Classes, Records
from fsaf.errors import UserError
from fsaf.recipe import build_config
from fsaf.reporting.charts import Series, line_chart
from fsaf.reporting.worst import worst_pictures
from fsaf.run_folder.read import parse_settings
from fsaf.scoring import analysis
from fsaf.scoring.analysis import RECALLS, SIZES, Curve
from fsaf.scoring.errors import ErrorKind, error_kinds
from fsaf.scoring.matching import IOU, Predictions, match_boxes, tabulate
from fsaf.scoring.metrics import unique_names
from fsaf.scoring.slices import Slice, found_boxes

MOST_CLASSES = 12
"""With more classes, only the largest entries of the confusion matrix are shown."""
MOST_CURVES = 8
_EXTREMES = 3


@dataclass(kw_only=True)
class Findings:
    """Sections of a report; empty ones are left out."""

    source: str
    """The annotations that the predictions were compared with."""
    curves: Markup
    thresholds: list[tuple[str, float, float]]
    """Class, highest F1, and the score threshold with that F1."""
    confusion: tuple[list[str], list[tuple[str, list[tuple[int, float]]]]] | None
    """Names of the columns, and for each row its name with counts and their shares of the row."""
    confused: list[tuple[str, str, int]]
    """The most frequent confusions (annotated, predicted, count), if the matrix is too large to show."""
    errors: list[ErrorKind]
    slices: dict[str, list[Slice]]
    """Which boxes are found, and AP, by kind of slice."""
    calibration: Markup
    calibration_error: float
    levels: list[tuple[str, list[tuple[str, int, list[float]]]]]
    """Tables: title, rows of name, detections, share of each level."""
    worst: list[tuple[str, str, str]]
    """Title, data URL and description of each picture."""


class OpenSplit(NamedTuple):
    """An open split."""

    records: Records
    data: DataConfig
    """Settings that its images are read with."""


def open_splits(
    evaluation: Mapping[str, Any] | None,
    settings: str | None,
    notes: list[str],
    validation: Records | None = None,
) -> dict[str, OpenSplit]:
    """Open the training split and, if the run was evaluated, the validation split; skip unreadable ones.

    The result has them by the keys ``training`` and ``validation``. The training split is the one of
    config.yaml, the validation split the one of the evaluation, or of config.yaml if the evaluation does not
    name one. notes: gets a sentence on each split that cannot be read. validation: the split of the
    evaluation, if it is open already.
    """
    config = parse_settings(settings, notes)
    own = config.get("data") if isinstance(config, dict) else None
    evaluated = None if evaluation is None else evaluation.get("data") or own
    opened: dict[str, OpenSplit] = {}
    for title, name, data in (("training", "train", own), ("validation", "val", evaluated)):
        if not isinstance(data, dict):
            continue
        try:
            settings_ = build_config({"data": data}, where="the run's data settings").data
            if name == "val" and validation is not None:
                opened[title] = OpenSplit(validation, settings_)
            elif _has(settings_, name):
                opened[title] = OpenSplit(open_split(settings_, name, _classes(evaluation)), settings_)
        except (UserError, OSError) as error:
            notes.append(
                f"the {title} split could not be read, so sections that need it are left out: {error}"
            )
    return opened


def _has(data: DataConfig, name: str) -> bool:
    """Return True if the config says where the split is."""
    return data.root is not None or getattr(data, name).annotations is not None


def _classes(evaluation: Mapping[str, Any] | None) -> Classes | None:
    """Return the classes of the detector, or None if the evaluation does not list them, as older ones."""
    classes = (evaluation or {}).get("classes")
    names, ids = (classes.get("names"), classes.get("ids")) if isinstance(classes, dict) else (None, None)
    if not isinstance(names, list) or not isinstance(ids, list) or len(names) != len(ids):
        return None
    if not all(isinstance(name, str) for name in names) or not all(type(id_) is int for id_ in ids):
        return None
    return Classes(names=tuple(names), ids=tuple(ids))


def find(split: OpenSplit, predictions: Any, notes: list[str]) -> Findings | None:
    """Compare predictions (COCO's results format) with a split; return None if they do not fit.

    notes: gets a sentence in that case, and for pictures that cannot be shown.
    """
    records = split.records
    try:
        table = tabulate(records, predictions)
    except UserError as error:
        notes.append(f"predictions.json does not fit: {error}")
        return None
    matches = match_boxes(records, table)
    curves = analysis.precision_recall(records, table, matches)
    bins = analysis.calibration(table, matches)
    points = [(each.score, each.right) for each in bins]
    matrix, names = analysis.confusion(records, table), [*records.classes.names, "background"]
    small = len(names) - 1 <= MOST_CLASSES
    return Findings(
        source=str(records.source),
        curves=_curves(curves),
        thresholds=[(each.name, each.best_f1, each.best_score) for each in curves],
        confusion=(names, _rows(matrix, names)) if small else None,
        confused=[] if small else _confused(matrix, names),
        errors=error_kinds(records, predictions),
        slices=found_boxes(records, predictions, table, matches),
        calibration=line_chart(
            "Share of right detections by score",
            [
                Series(name="this run", points=points, style="s0", value=""),
                Series(
                    name="scores that mean what they say", points=[(0, 0), (1, 1)], style="ideal", value=""
                ),
            ],
            "score",
            dots=True,
            unit=True,
        )
        if bins
        else Markup(""),
        calibration_error=analysis.calibration_error(bins),
        levels=_levels(table, records.classes),
        worst=worst_pictures(records, table, matches, split.data, notes),
    )


def _curves(curves: Sequence[Curve]) -> Markup:
    """Draw the curves of all classes; of many classes, the mean and the extremes."""
    ranked = sorted(curves, key=lambda curve: -curve.precision.mean())
    lines = [(each.name, each.precision) for each in ranked]
    if len(lines) > MOST_CURVES:
        mean = np.mean([precision for _, precision in lines], axis=0)
        lines = [("mean of all classes", mean), *lines[:_EXTREMES], *lines[-_EXTREMES:]]
    return line_chart(
        f"Precision over recall at IoU {IOU}",
        [
            Series(
                name=name,
                points=list(zip(RECALLS.tolist(), precision.tolist(), strict=True)),
                style=f"s{i}",
                value=f"{precision.mean():.3f}",
            )
            for i, (name, precision) in enumerate(lines)
        ],
        "recall",
        unit=True,
    )


def _rows(matrix: np.ndarray, names: Sequence[str]) -> list[tuple[str, list[tuple[int, float]]]]:
    totals = np.maximum(matrix.sum(1, keepdims=True), 1)
    return [
        (name, list(zip(counts.tolist(), shares.tolist(), strict=True)))
        for name, counts, shares in zip(names, matrix, matrix / totals, strict=True)
    ]


def _confused(matrix: np.ndarray, names: Sequence[str], most: int = 15) -> list[tuple[str, str, int]]:
    """Return the most frequent confusions of two classes, without missed and false detections."""
    classes = matrix[:-1, :-1].copy()
    np.fill_diagonal(classes, 0)
    order = np.argsort(-classes, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, classes.shape), strict=True)
    return [(names[i], names[j], int(classes[i, j])) for i, j in pairs if classes[i, j]]


def _levels(
    predictions: Predictions, classes: Classes
) -> list[tuple[str, list[tuple[str, int, list[float]]]]]:
    counts = analysis.level_counts(predictions, len(classes))
    if counts is None:
        return []
    return [
        (
            title,
            [
                (name, int(row.sum()), (row / row.sum()).tolist())
                for name, row in zip(names, table, strict=True)
                if row.any()
            ],
        )
        for title, names, table in (("Class", classes.names, counts[0]), ("Box size", SIZES, counts[1]))
    ]


FactRow = tuple[str, list[str]]
"""Name of a fact, and a text for each split."""


def summarise(splits: Mapping[str, OpenSplit]) -> tuple[list[FactRow], list[FactRow]]:
    """Return facts about the splits, and their number of boxes of each class."""
    tables = [_summary(split.records) for split in splits.values()]
    facts = [(name, [table[0][name] for table in tables]) for name in (tables[0][0] if tables else ())]
    names = dict.fromkeys(name for table in tables for name in table[1])
    return facts, [(name, [f"{table[1].get(name, 0):,}" for table in tables]) for name in names]


def _summary(split: Records) -> tuple[dict[str, str], dict[str, int]]:
    boxes = np.concatenate([image.boxes[~image.crowd] for image in split.images])
    labels = np.concatenate([image.labels[~image.crowd] for image in split.images])
    sizes = Counter((image.width, image.height) for image in split.images)
    (width, height), most = sizes.most_common(1)[0]
    others = f" ({most:,}; {len(sizes) - 1} other sizes)" if len(sizes) > 1 else ""
    sides = boxes[:, 2:] - boxes[:, :2]
    middle = " x ".join(f"{side:.0f}" for side in np.median(sides, 0)) if len(sides) else "-"
    counts = np.bincount(analysis.size_of(area(boxes.astype(np.float64).T)), minlength=len(SIZES))
    facts = {
        "images": f"{len(split.images):,}",
        "images without boxes": f"{sum(not len(image.boxes) for image in split.images):,}",
        "image size, most frequent": f"{width} x {height}{others}",
        "boxes": f"{len(boxes):,}",
        "crowd regions": f"{sum(int(image.crowd.sum()) for image in split.images):,}",
        "boxes an image, on average": f"{len(boxes) / len(split.images):.1f}",
        "box size, median": middle,
        "small boxes (under 32 x 32)": f"{counts[0]:,}",
        "medium boxes": f"{counts[1]:,}",
        "large boxes (over 96 x 96)": f"{counts[2]:,}",
    }
    per_class = np.bincount(labels, minlength=len(split.classes)).tolist()
    names = unique_names(split.classes.ids, split.classes.names)
    return facts, dict(zip(names, per_class, strict=True))
