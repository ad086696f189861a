"""COCO's metrics for boxes: predictions in COCO's results format against a COCO annotation file.

Index letters of the accumulated arrays, as in COCO's evaluation code: T IoU thresholds (0.50, 0.55 ... 0.95),
R recall points, K classes, A area ranges, M detection limits.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

import hotcoco
import numpy as np

from fsaf.data.readers.coco import read_json
from fsaf.errors import DataError

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
"""The meaning of each of COCO's twelve figures, in COCO's order."""


class ClassMetrics(TypedDict):
    """Figures of one class."""

    AP: float | None
    AP50: float | None
    boxes: int


class Metrics(TypedDict, total=False):
    """COCO's figures, from 0 to 1; None if there is no object to measure them on (COCO's code has -1)."""

    AP: float | None
    AP50: float | None
    AP75: float | None
    AP_small: float | None
    AP_medium: float | None
    AP_large: float | None
    AR1: float | None
    AR10: float | None
    AR100: float | None
    AR_small: float | None
    AR_medium: float | None
    AR_large: float | None
    per_class: dict[str, ClassMetrics]
    """By class name."""
    boxes_by_size: dict[str, int]
    """Number of objects that the small, medium and large figures are measured on."""
    epoch: int
    step: int
    """Epochs and steps of training behind the network; set by training."""
    intervals: dict[str, tuple[float, float]]
    """95% intervals of AP and AP50 (``fsaf.scoring.confidence``); set by ``evaluate``."""
    images: int
    images_per_second: float
    """Speed of reading, network and post-processing; set by ``evaluate``."""
    val_loss: float | None
    """The objective on the split; set by training, None if its detections use several views."""


def coco_metrics(
    annotations: Path | Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    image_ids: Sequence[int] | None = None,
    category_ids: Sequence[int] | None = None,
) -> Metrics:
    """Return COCO's twelve figures, and figures of each class, equal to those of pycocotools.

    annotations: a COCO JSON file, or its content; ``area`` defaults to width times height, ``iscrowd`` to 0.
    predictions: dicts with ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in pixels of the
    original image) and ``score``. image_ids, category_ids: evaluate on these only; by default on all. Numbers
    of boxes leave out crowd regions.
    Raises DataError for an image id that the annotations do not have.
    """
    source = str(annotations) if isinstance(annotations, Path) else "the annotations"
    data = read_json(annotations) if isinstance(annotations, Path) else annotations
    truth = _truth(data, source)
    images = _chosen(image_ids, [image["id"] for image in truth["images"]], "image", source)
    categories = _chosen(category_ids, [entry["id"] for entry in truth["categories"]], "category", source)
    _check(predictions, {image["id"] for image in truth["images"]}, source)

    # Names play no part here, and may hold characters that hotcoco refuses.
    kinds_only = [{"id": entry["id"], "name": str(entry["id"])} for entry in truth["categories"]]
    known = hotcoco.COCO({**truth, "categories": kinds_only})
    evaluation = hotcoco.COCOeval(known, known.load_res([dict(entry) for entry in predictions]), "bbox")
    evaluation.params.imgIds, evaluation.params.catIds = images, categories
    evaluation.params.maxDets = list(LIMITS)
    evaluation.evaluate()
    evaluation.accumulate()
    assert evaluation.eval is not None
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
    return cast(Metrics, metrics)


def _truth(data: Any, source: str) -> dict[str, Any]:
    """Return what box metrics need, with defaults filled in and ids from 1: pycocotools matches no id 0."""
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
        raise DataError(f"{source}: not COCO JSON with boxes ({type(error).__name__}: {error})") from error


def _check(predictions: Sequence[Mapping[str, Any]], images: set[int], source: str) -> None:
    """Raise DataError for a prediction of an image that the annotations do not have."""
    for i, entry in enumerate(predictions, start=1):
        if entry["image_id"] not in images:
            raise DataError(f"prediction {i} is of image {entry['image_id']!r}, which {source} does not list")


def _chosen(wanted: Sequence[int] | None, known: list[int], what: str, source: str) -> list[int]:
    if wanted is None:
        return sorted(set(known))
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise DataError(f"{what} id {unknown[0]} is not in {source}")
    return sorted(set(wanted))


def unique_names(ids: Sequence[int], names: Sequence[str]) -> list[str]:
    """Return names of classes; the category id follows names that occur twice."""
    count = Counter(names)
    return [name if count[name] == 1 else f"{name} ({id_})" for id_, name in zip(ids, names, strict=True)]


def _mean(values: np.ndarray) -> float | None:
    """Return the mean without the entries of classes without objects, which are -1 in COCO's arrays."""
    values = values[values > -1]
    return float(values.mean()) if values.size else None
