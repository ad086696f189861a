"""Right and wrong predictions, compared with pycocotools, slow loops, and numbers by hand."""

import contextlib
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fsaf.data.records import Classes, ImageRecord, Records, to_coco
from fsaf.errors import UserError
from fsaf.scoring import analysis
from fsaf.scoring.matching import Matches, Predictions, match_boxes, tabulate

CLASSES = Classes(names=("a", "b", "c", "none"), ids=(3, 17, 90, 40))
Prediction = dict[str, Any]


def record(id: int, boxes: Any, labels: Any, crowd: Any = None) -> ImageRecord:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    flags = np.zeros(len(boxes), bool) if crowd is None else np.array(crowd, bool)
    return ImageRecord(
        id=id,
        path=Path(f"{id}.jpg"),
        width=640,
        height=640,
        boxes=boxes,
        labels=np.array(labels, np.int64),
        crowd=flags,
    )


def split(*images: ImageRecord) -> Records:
    return Records(images=list(images), classes=CLASSES, source=Path("val.json"))


def made_up(seed: int, images: int = 15) -> tuple[Records, list[Prediction]]:
    """Return boxes, some of them crowd regions, and predictions.

    Predictions are near boxes, doubled, of a wrong class, or nowhere. They have few different scores, so that
    many are equal.
    """
    rng = np.random.default_rng(seed)
    records, found = [], []
    for id_ in rng.permutation(images).tolist():
        count = int(rng.integers(0, 8))
        corner, sides = rng.integers(0, 300, (count, 2)), rng.integers(8, 220, (count, 2))
        labels = rng.integers(0, 3, count)
        records.append(record(id_, np.c_[corner, corner + sides], labels, rng.random(count) < 0.15))
        near = np.repeat(np.arange(count), rng.choice([0, 1, 2], count, p=[0.15, 0.6, 0.25]))
        jitter = rng.normal(0, 0.12, (len(near), 4)) * sides[near][:, [0, 1, 0, 1]]
        boxes = np.c_[corner[near], sides[near]] + np.round(jitter)
        boxes = np.r_[boxes, np.c_[rng.integers(0, 300, (3, 2)), rng.integers(5, 200, (3, 2))]]
        kinds = np.where(rng.random(len(boxes)) < 0.2, rng.integers(0, 4, len(boxes)), 0)
        kinds[: len(near)] = np.where(kinds[: len(near)] > 0, kinds[: len(near)], labels[near])
        for box, label in zip(boxes.tolist(), kinds.tolist(), strict=True):
            score = float(rng.integers(1, 40)) / 40
            box[2:] = [max(side, 1.0) for side in box[2:]]
            found.append(
                {"image_id": id_, "category_id": CLASSES.ids[label], "bbox": box, "score": score, "level": 4}
            )
    rng.shuffle(found)  # type: ignore[arg-type]
    return split(*records), found


def assert_as_pycocotools(records: Records, predictions: list[Prediction]) -> list[analysis.Curve]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = to_coco(records)
        truth.createIndex()
        scored = COCOeval(truth, truth.loadRes(predictions), "bbox")
        scored.evaluate()
        scored.accumulate()
    expected = scored.eval["precision"][0, :, :, 0, 2]
    found = tabulate(records, predictions)
    curves = analysis.precision_recall(records, found, match_boxes(records, found))
    for curve in curves:
        column = scored.params.catIds.index(CLASSES.ids[CLASSES.names.index(curve.name)])
        np.testing.assert_allclose(curve.precision, expected[:, column], atol=1e-9)
    return curves


@pytest.mark.parametrize("seed", range(5))
def test_precision_and_recall_are_those_of_pycocotools(seed: int) -> None:
    curves = assert_as_pycocotools(*made_up(seed))
    assert [curve.name for curve in curves] == ["a", "b", "c"]  # the last class has no boxes
    assert all(0.01 < curve.precision.mean() < 0.99 for curve in curves)


def test_of_boxes_overlapped_alike_the_last_is_taken_as_by_pycocotools() -> None:
    """The first detection is halfway between two boxes; the second overlaps only the last box enough."""
    records = split(record(1, [[0, 0, 100, 100], [20, 0, 120, 100]], [0, 0]))
    rows = ((10, 0.9), (40, 0.8))
    predictions = [
        {"image_id": 1, "category_id": 3, "bbox": [x, 0, 100, 100], "score": score} for x, score in rows
    ]
    (curve,) = assert_as_pycocotools(records, predictions)
    assert curve.precision.tolist() == [1.0] * 51 + [0.0] * 50


def test_of_an_image_and_class_the_best_hundred_count() -> None:
    records = split(record(1, [[0, 0, 50, 50]], [0]))
    far = {"image_id": 1, "category_id": 3, "bbox": [300, 300, 50, 50], "score": 0.5}
    right = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 50, 50], "score": 0.4}
    other = {"image_id": 1, "category_id": 17, "bbox": [0, 0, 50, 50], "score": 0.1}
    for more, kept in ((99, True), (100, False)):
        found = tabulate(records, [other] + [far] * more + [right])
        assert match_boxes(records, found).right.any() == kept and len(found.score) == 101


def test_best_threshold_by_hand() -> None:
    records = split(record(1, [[0, 0, 50, 50], [100, 0, 150, 50]], [0, 0]))
    places = ((0, 0.9), (300, 0.8), (100, 0.6), (400, 0.5))  # right, wrong, right, wrong
    found = tabulate(
        records,
        [{"image_id": 1, "category_id": 3, "bbox": [x, 0, 50, 50], "score": s} for x, s in places],
    )
    (curve,) = analysis.precision_recall(records, found, match_boxes(records, found))
    assert (curve.best_f1, curve.best_score) == (pytest.approx(2 * 2 / (3 + 2)), 0.6)
    np.testing.assert_allclose(curve.precision, np.r_[np.ones(51), np.full(50, 2 / 3)])


def slow_iou(a: list[float], b: list[float], crowd: bool) -> float:
    width = min(a[0] + a[2], b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return common / (a[2] * a[3] + (0 if crowd else (b[2] - b[0]) * (b[3] - b[1]) - common))


@pytest.mark.parametrize("seed", range(5))
def test_confusion_is_that_of_a_slow_loop(seed: int) -> None:
    records, predictions = made_up(seed)
    expected = np.zeros((5, 5), int)
    wrong = dict.fromkeys((image.id for image in records.images), 0)
    for image in records.images:
        boxes = list(zip(image.boxes.tolist(), image.labels.tolist(), image.crowd.tolist(), strict=True))
        left = [i for i, (_, _, crowd) in enumerate(boxes) if not crowd]
        mine = [p for p in predictions if p["image_id"] == image.id and p["score"] >= 0.3]
        for prediction in sorted(mine, key=lambda p: -p["score"]):
            column = CLASSES.ids.index(prediction["category_id"])
            over = {i: slow_iou(prediction["bbox"], boxes[i][0], False) for i in left}
            best = max(over, key=lambda i: (over[i], i), default=None)
            if best is not None and over[best] >= 0.5:
                left.remove(best)
                expected[boxes[best][1], column] += 1
            elif not any(c and slow_iou(prediction["bbox"], b, True) >= 0.5 for b, _, c in boxes):
                expected[4, column] += 1
                wrong[image.id] += 1
        for i in left:
            expected[boxes[i][1], 4] += 1
    found = tabulate(records, predictions)
    np.testing.assert_array_equal(analysis.confusion(records, found), expected)
    assert expected[4].sum() > 5 and expected[:, 4].sum() > 5 and np.trace(expected) > 5
    by_any = match_boxes(records, found, by_class=False)
    false, missed = analysis.mistakes(records, found, by_any)
    assert false.tolist() == [wrong[image.id] for image in records.images]
    assert missed.sum() == expected[:, 4].sum()


def table(
    scores: list[float], levels: list[int] | None = None, boxes: Any = None, labels: Any = None
) -> Predictions:
    n = len(scores)
    return Predictions(
        image=np.ones(n, np.int64),
        label=np.zeros(n, np.int64) if labels is None else np.array(labels),
        score=np.array(scores),
        boxes=np.zeros((n, 4)) if boxes is None else np.array(boxes, float),
        level=np.full(n, -1) if levels is None else np.array(levels),
    )


def test_calibration_by_hand() -> None:
    found = table([1.0, 0.95, 0.92, 0.45, 0.41, 0.48, 0.05])
    truth = np.array([0, 1, -1, 2, -1, -1, -1])
    ignored = np.array([0, 0, 0, 0, 0, 1, 0], bool)
    bins = analysis.calibration(found, Matches(truth=truth, ignored=ignored))
    assert [each.count for each in bins] == [1, 2, 3]
    assert [each.score for each in bins] == pytest.approx([0.05, 0.43, 0.9566667])
    assert [each.right for each in bins] == pytest.approx([0, 0.5, 0.6666667])
    assert analysis.calibration_error(bins) == pytest.approx((0.05 + 2 * 0.07 + 3 * 0.29) / 6)
    assert analysis.calibration_error([]) == 0


def test_levels_by_hand() -> None:
    boxes = [[0, 0, 31, 33], [0, 0, 32, 32], [0, 0, 96, 96], [0, 0, 9, 9]]
    found = table([0.9, 0.5, 0.3, 0.29], [0, 0, 4, 1], boxes, [0, 2, 2, 1])
    counts = analysis.level_counts(found, 3)
    assert counts is not None
    assert counts[0].tolist() == [[1, 0, 0, 0, 0], [0] * 5, [1, 0, 0, 0, 1]]
    assert counts[1].tolist() == [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert analysis.level_counts(table([0.9, 0.8], [0, -1]), 1) is None
    assert analysis.level_counts(table([0.1], [0]), 1) is None


def test_mistakes_by_hand() -> None:
    """A missed box, one detected with too low a score, one of the wrong class, one in a crowd region."""
    records = split(
        record(5, [[0, 0, 50, 50]], [0]),
        record(2, [[0, 0, 50, 50], [100, 0, 150, 50], [200, 0, 400, 200]], [0, 1, 2], [0, 0, 1]),
        record(9, [], []),
    )
    rows = ((5, 3, 0, 0.29), (2, 17, 0, 0.9), (2, 17, 100, 0.8), (2, 90, 210, 0.7))
    found = tabulate(
        records,
        [{"image_id": i, "category_id": c, "bbox": [x, 0, 50, 50], "score": s} for i, c, x, s in rows],
    )
    false, missed = analysis.mistakes(records, found, match_boxes(records, found))
    assert false.tolist() == [0, 1, 0] and missed.tolist() == [1, 1, 0]


def test_boxes_of_three_numbers_are_not_put_together_anew() -> None:
    records = split(record(5, [[0, 0, 50, 50]], [0]))
    wrong = {"image_id": 5, "category_id": 3, "bbox": [0, 0, 1], "score": 1}
    with pytest.raises(UserError, match="not in COCO's results format"):
        tabulate(records, [wrong] * 4)


def test_no_predictions_at_all() -> None:
    records = split(record(5, [[0, 0, 50, 50]], [0]))
    found = tabulate(records, [])
    matches = match_boxes(records, found)
    (curve,) = analysis.precision_recall(records, found, matches)
    assert curve.precision.tolist() == [0.0] * 101 and curve.best_f1 == 0
    assert analysis.confusion(records, found)[0, 4] == 1
    assert analysis.calibration(found, matches) == [] and analysis.level_counts(found, 4) is None


@pytest.mark.parametrize(
    ("prediction", "told"),
    [
        ({"image_id": 6, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 1}, "other images"),
        ({"image_id": 5, "category_id": 4, "bbox": [0, 0, 1, 1], "score": 1}, "other images or categories"),
        ({"image_id": 5, "category_id": 3, "bbox": [0, 0, 1], "score": 1}, "not in COCO's results format"),
        ({"image_id": 5, "category_id": 3, "score": 1}, "not in COCO's results format"),
        ("x", "not in COCO's results format"),
        ({"image_id": 5, "category_id": 3, "bbox": [0, 0, 1, 1], "score": math.nan}, "not finite"),
        ({"image_id": 5, "category_id": 3, "bbox": [0, 0, math.inf, 1], "score": 1}, "not finite"),
    ],
)
def test_predictions_of_something_else_are_refused(prediction: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        tabulate(split(record(5, [[0, 0, 50, 50]], [0])), [prediction])
