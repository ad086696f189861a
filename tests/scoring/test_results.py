"""Detections in COCO's results format, and the effect of rounding."""

import json

import numpy as np
import pytest
import torch

from fsaf.scoring.metrics import METRICS, coco_metrics
from fsaf.scoring.results import to_coco_results
from scoring.test_metrics import jittered, made_up


def test_results_format_takes_tensors_and_keeps_accuracy() -> None:
    boxes = torch.tensor([[10.12345, 20.5, 110.98765, 60.25]])
    rows = to_coco_results(4, boxes, torch.tensor([0.123456789]), torch.tensor([1]), [3, 17])
    assert rows == [
        {"image_id": 4, "category_id": 17, "bbox": [10.123, 20.5, 100.864, 39.75], "score": 0.123456791}
    ]
    assert to_coco_results(4, torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), [3]) == []
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize("score", [0.02, 0.3, 0.9999])
def test_scores_next_to_each_other_keep_their_order(score: float) -> None:
    """A better detection ranks first, however small the difference; equal scores keep the order given."""
    low = np.float32(score)
    scores = [low, np.nextafter(low, np.float32(1))]
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 3, "name": "thing"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [0, 0, 50, 50]}],
    }
    boxes = [[200, 200, 250, 250], [0, 0, 50, 50]]
    assert coco_metrics(truth, to_coco_results(1, boxes, scores, [0, 0], [3]))["AP"] == pytest.approx(1)


def test_the_results_format_moves_no_figure() -> None:
    rng = np.random.default_rng(2)
    data = made_up(rng)
    predictions = jittered(data, rng)
    ids = sorted({entry["category_id"] for entry in predictions})
    rounded = []
    for entry in predictions:
        x, y, width, height = entry["bbox"]
        box = np.array([[x, y, x + width, y + height]], np.float32)
        label = ids.index(entry["category_id"])
        rounded += to_coco_results(entry["image_id"], box, [entry["score"]], [label], ids)
    exact, after = coco_metrics(data, predictions), coco_metrics(data, rounded)
    assert [after[key] for key in METRICS] == pytest.approx([exact[key] for key in METRICS], abs=1e-6)
