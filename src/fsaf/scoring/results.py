"""Detections in COCO's results format, and the files of an evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fsaf.config import DataConfig, to_dict
from fsaf.data.records import Classes
from fsaf.files import write_text
from fsaf.scoring.metrics import Metrics


def to_coco_results(
    image_id: int,
    boxes: ArrayLike,
    scores: ArrayLike,
    labels: ArrayLike,
    category_ids: Sequence[int],
    levels: ArrayLike | None = None,
) -> list[dict[str, Any]]:
    """Return the detections of one image in COCO's results format.

    boxes: (n, 4) x1, y1, x2, y2 in pixels of the original image. scores: (n,). labels: (n,) 0..C-1.
    category_ids: the data set's id of each label (``Classes.ids``). levels: (n,) pyramid level of each, 0 for
    P3; written as ``level``, 3 for P3, which readers of the format ignore. Boxes are rounded to 0.001 pixel,
    scores to nine decimals: float32 scores from 0.02 on stay different, so the order of detections stays.
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
                "score": round(score, 9),
            }
        )
    for result, level in zip(results, () if levels is None else np.asarray(levels).tolist(), strict=False):
        result["level"] = 3 + level
    return results


def write_evaluation(
    out: Path,
    metrics: Metrics,
    predictions: list[dict[str, Any]],
    data: DataConfig | None = None,
    classes: Classes | None = None,
) -> None:
    """Write ``evaluation.json`` and ``predictions.json`` into folder ``out``, each whole or not at all.

    data, classes: settings of the split and classes of the detector, written to ``evaluation.json`` so that
    the report can find the annotations. Raises WriteError if a file cannot be written.
    """
    origin = {"data": data and to_dict(data), "classes": classes and to_dict(classes)}
    evaluation = {**metrics, **{key: value for key, value in origin.items() if value}}
    for name, value, indent in (("evaluation", evaluation, 1), ("predictions", predictions, None)):
        write_text(out / f"{name}.json", json.dumps(value, indent=indent))
