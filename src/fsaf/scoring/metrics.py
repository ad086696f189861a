"""COCO's metrics for boxes: predictions in COCO's results format against a COCO annotation file.

Index letters of the accumulated arrays, as in COCO's evaluation code: T IoU thresholds (0.50, 0.55 ... 0.95),
R recall points, K classes, A area ranges, M detection limits.
"""

import contextlib
import gc
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import ArrayLike
from rich.cells import cell_len

from fsaf.data.readers.coco import read_json
from fsaf.errors import UserError, printable

AREAS = ("all", "small", "medium", "large")
"""Area ranges in the order of COCO's code: any, under 32x32, from 32x32 to 96x96, over 96x96 pixels."""

LIMITS = (1, 10, 100)
"""Best detections of an image, of each class, that count."""

_ROWS = (
    ("AP", "average precision, IoU 0.50 to 0.95"),
    ("AP50", "average precision, IoU 0.50"),
    ("AP75", "average precision, IoU 0.75"),
    ("AP_small", "AP of objects under 32x32 pixels"),
    ("AP_medium", "AP of objects of 32x32 to 96x96 pixels"),
    ("AP_large", "AP of objects over 96x96 pixels"),
    ("AR1", "average recall, 1 detection per image"),
    ("AR10", "average recall, 10 detections per image"),
    ("AR100", "average recall, 100 detections per image"),
    ("AR_small", "AR of objects under 32x32 pixels"),
    ("AR_medium", "AR of objects of 32x32 to 96x96 pixels"),
    ("AR_large", "AR of objects over 96x96 pixels"),
)

METRICS: dict[str, str] = dict(_ROWS)
"""What each of COCO's twelve figures says, in COCO's order."""


def coco_metrics(
    annotations: Path | Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    image_ids: Sequence[int] | None = None,
    category_ids: Sequence[int] | None = None,
) -> dict[str, Any]:
    """COCO's twelve figures and those of each class.

    annotations: a COCO JSON file or what it holds; where not given, ``area`` is width times height and
    ``iscrowd`` is 0. predictions: dicts with ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in
    pixels of the original image) and ``score``. image_ids, category_ids: count only these; by default all.

    Returns the keys of ``METRICS``, shares of 1, and ``per_class``: by name ``{"AP", "AP50", "boxes"}``;
    ``boxes`` counts objects (crowd regions left out); ``boxes_by_size`` those that the figures by size
    are of, by their ``area``. None stands for COCO's -1: there is no such object.
    The figures are those of pycocotools. Raises UserError for an image id that the annotations do not have.
    """
    with _no_collection():
        return _coco_metrics(annotations, predictions, image_ids, category_ids)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without Python's search for cycles: among a million dicts there are none, and it goes through all of
    them again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _coco_metrics(
    annotations: Path | Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    image_ids: Sequence[int] | None,
    category_ids: Sequence[int] | None,
) -> dict[str, Any]:
    source = str(annotations) if isinstance(annotations, Path) else "the annotations"
    data = read_json(annotations) if isinstance(annotations, Path) else annotations
    truth = _truth(data, source)
    images = _chosen(image_ids, [image["id"] for image in truth["images"]], "image", source)
    categories = _chosen(category_ids, [entry["id"] for entry in truth["categories"]], "category", source)
    found = _found(predictions, {image["id"] for image in truth["images"]}, source)

    evaluation = COCOeval_faster(
        COCO(truth), COCO({**truth, "annotations": found}), iouType="bbox", print_function=_silent
    )
    evaluation.params.imgIds, evaluation.params.catIds = images, categories
    evaluation.params.maxDets = list(LIMITS)
    evaluation.evaluate()
    evaluation.accumulate()
    precision_trkam = np.asarray(evaluation.eval["precision"])
    recall_tkam = np.asarray(evaluation.eval["recall"])

    metrics: dict[str, Any] = {
        "AP": _mean(precision_trkam[:, :, :, 0, -1]),
        "AP50": _mean(precision_trkam[0, :, :, 0, -1]),
        "AP75": _mean(precision_trkam[5, :, :, 0, -1]),
    }
    for a, area in enumerate(AREAS[1:], start=1):
        metrics[f"AP_{area}"] = _mean(precision_trkam[:, :, :, a, -1])
    for m, limit in enumerate(LIMITS):
        metrics[f"AR{limit}"] = _mean(recall_tkam[:, :, 0, m])
    for a, area in enumerate(AREAS[1:], start=1):
        metrics[f"AR_{area}"] = _mean(recall_tkam[:, :, a, -1])

    wanted = set(images)
    kinds = set(categories)
    counted = [
        entry
        for entry in truth["annotations"]
        if entry["image_id"] in wanted and entry["category_id"] in kinds and not entry["iscrowd"]
    ]
    boxes = Counter(entry["category_id"] for entry in counted)
    ids = [entry["id"] for entry in truth["categories"]]
    names = dict(zip(ids, unique_names(ids, [entry["name"] for entry in truth["categories"]]), strict=True))
    metrics["boxes_by_size"] = {
        name: sum(low <= entry["area"] <= high for entry in counted)
        for name, (low, high) in zip(AREAS[1:], evaluation.params.areaRng[1:], strict=True)
    }
    metrics["per_class"] = {
        names[id_]: {
            "AP": _mean(precision_trkam[:, :, k, 0, -1]),
            "AP50": _mean(precision_trkam[0, :, k, 0, -1]),
            "boxes": boxes[id_],
        }
        for k, id_ in enumerate(categories)
    }
    return metrics


def to_coco_results(
    image_id: int,
    boxes: ArrayLike,
    scores: ArrayLike,
    labels: ArrayLike,
    category_ids: Sequence[int],
    levels: ArrayLike | None = None,
) -> list[dict[str, Any]]:
    """The detections of one image in COCO's results format.

    boxes: (n, 4) x1, y1, x2, y2 in pixels of the original image. scores: (n,). labels: (n,) 0..C-1.
    category_ids: the data set's id of each label (``Classes.ids``). levels: (n,) the pyramid level that found
    each, 0 for P3; written as ``level``, 3 for P3, which readers of the format pass over. Boxes are rounded
    to 0.001 pixel and scores to six decimals, which keeps files small and moves no figure.
    """
    boxes_n4 = np.asarray(boxes, np.float64).reshape(-1, 4)
    scores_n = np.asarray(scores, np.float64).reshape(-1)
    labels_n = np.asarray(labels, np.int64).reshape(-1)
    results = []
    for (x1, y1, x2, y2), score, label in zip(
        boxes_n4.tolist(), scores_n.tolist(), labels_n.tolist(), strict=True
    ):
        results.append(
            {
                "image_id": int(image_id),
                "category_id": int(category_ids[label]),
                "bbox": [round(x1, 3), round(y1, 3), round(x2 - x1, 3), round(y2 - y1, 3)],
                "score": round(score, 6),
            }
        )
    for result, level in zip(results, () if levels is None else np.asarray(levels).tolist(), strict=False):
        result["level"] = 3 + level
    return results


def format_table(metrics: Mapping[str, Any], classes: int | None = None) -> str:
    """COCO's table and the figures of each class as aligned plain text, the same in a terminal and in a file.

    metrics: what ``coco_metrics`` returns, or ``evaluation.json``. classes: show at most this many classes.
    A figure that does not exist is shown as ``-``.
    """
    lines = [f"{key:<10} {_figure(metrics.get(key)):>6}  {meaning}" for key, meaning in METRICS.items()]
    rows = [
        (printable(name), _figure(row["AP"]), _figure(row["AP50"]), str(row["boxes"]))
        for name, row in metrics.get("per_class", {}).items()
    ]
    if rows:
        shown = rows[:classes]
        width = max(10, *(cell_len(row[0]) for row in shown)) if shown else 10
        lines += ["", f"{'class':<{width}} {'AP':>6} {'AP50':>6} {'boxes':>7}"]
        for name, ap, ap50, boxes in shown:
            lines.append(f"{name}{' ' * (width - cell_len(name))} {ap:>6} {ap50:>6} {boxes:>7}")
        if len(shown) < len(rows):
            lines.append(f"... and {len(rows) - len(shown)} more classes")
    return "\n".join(lines)


def _truth(data: Any, source: str) -> dict[str, Any]:
    """Only what box metrics need, so that nothing of the caller's is changed; ids start from 1 since COCO's
    code takes an annotation with id 0 for "no match"."""
    try:
        return {
            "images": [{"id": int(image["id"])} for image in data["images"]],
            "categories": [
                {"id": int(entry["id"]), "name": str(entry["name"])}
                for entry in sorted(data["categories"], key=lambda entry: entry["id"])
            ],
            "annotations": [
                {
                    "id": i,
                    "image_id": int(entry["image_id"]),
                    "category_id": int(entry["category_id"]),
                    "bbox": [float(value) for value in entry["bbox"]],
                    "area": float(entry["bbox"][2] * entry["bbox"][3])
                    if entry.get("area") is None
                    else float(entry["area"]),
                    "iscrowd": int(bool(entry.get("iscrowd", 0))),
                }
                for i, entry in enumerate(data["annotations"], start=1)
            ],
        }
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise UserError(f"{source}: not COCO JSON with boxes ({type(error).__name__}: {error})") from error


def _found(predictions: Sequence[Mapping[str, Any]], images: set[int], source: str) -> list[dict[str, Any]]:
    """What the library reads, with the caller's own numbers: to convert them takes 7% of all scoring."""
    found = []
    for i, entry in enumerate(predictions, start=1):
        if entry["image_id"] not in images:
            raise UserError(f"prediction {i} is of image {entry['image_id']!r}, which {source} does not list")
        box = entry["bbox"]
        found.append(
            {
                "id": i,
                "image_id": entry["image_id"],
                "category_id": entry["category_id"],
                "bbox": box,
                "score": entry["score"],
                "area": box[2] * box[3],
            }
        )
    return found


def _chosen(wanted: Sequence[int] | None, known: list[int], what: str, source: str) -> list[int]:
    if wanted is None:
        return sorted(set(known))
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise UserError(f"{what} id {unknown[0]} is not in {source}")
    return sorted(set(wanted))


def unique_names(ids: Sequence[int], names: Sequence[str]) -> list[str]:
    """Names of classes; those that occur twice get their category's id behind them."""
    count = Counter(names)
    return [name if count[name] == 1 else f"{name} ({id_})" for id_, name in zip(ids, names, strict=True)]


def _mean(values: np.ndarray) -> float | None:
    """Mean of what exists; COCO's arrays hold -1 for a class without objects."""
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def _figure(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _silent(*_: object) -> None:
    """Takes the place of the library's printing."""
