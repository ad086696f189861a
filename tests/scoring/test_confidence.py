"""Intervals of AP: exact on every draw, right about other images, and wide enough to tell chance."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fsaf.data.records import ImageRecord, Records, to_coco
from fsaf.scoring import confidence
from fsaf.scoring.confidence import bootstrap, difference, draw_images, intervals
from fsaf.scoring.matching import tabulate
from fsaf.scoring.metrics import coco_metrics
from scoring.test_analysis import Prediction, made_up, record, split


def repeated(
    records: Records, predictions: list[Prediction], counts: np.ndarray
) -> tuple[Records, list[Prediction]]:
    """Return each image as often as a draw takes it, under new ids."""
    images: list[ImageRecord] = []
    found: list[Prediction] = []
    for image, count in zip(records.images, counts.astype(int).tolist(), strict=True):
        for _ in range(count):
            new = len(images) + 1
            images.append(replace(image, id=new))
            found += [{**entry, "image_id": new} for entry in predictions if entry["image_id"] == image.id]
    return split(*images), found


@pytest.mark.parametrize("seed", range(4))
def test_each_draw_has_the_ap_of_its_images(seed: int) -> None:
    """Scores are all different: copies of an image have equal ones, whose order is up to the evaluator."""
    records, predictions = made_up(seed)
    rng = np.random.default_rng(seed)
    for entry, score in zip(predictions, rng.permutation(len(predictions)), strict=True):
        entry["score"] = (score + 1) / (len(predictions) + 1)
    drawn = bootstrap(records, tabulate(records, predictions), draws=6, seed=seed)
    counts = draw_images(len(records.images), 6, seed)
    for i in range(6):
        images, found = repeated(records, predictions, counts[:, i])
        metrics = coco_metrics(to_coco(images), found)
        assert drawn.ap50[i] == pytest.approx(metrics["AP50"], abs=2e-3)
        assert drawn.ap[i] == pytest.approx(metrics["AP"], abs=2e-3)


def test_a_draw_takes_as_many_images_as_there_are() -> None:
    counts = draw_images(17, 50)
    assert counts.shape == (17, 50) and (counts.sum(0) == 17).all() and counts.max() > 1


def population(seed: int, images: int, quality: float = 0.1) -> tuple[Records, list[Prediction]]:
    """Return boxes of one class, and predictions off by ``quality`` times their sides, more or less."""
    rng = np.random.default_rng(seed)
    records, found = [], []
    for id_ in range(1, images + 1):
        count = int(rng.integers(1, 5))
        corner, sides = rng.uniform(0, 400, (count, 2)), rng.uniform(30, 150, (count, 2))
        records.append(record(id_, np.c_[corner, corner + sides], np.zeros(count)))
        spread = quality * rng.uniform(0.2, 1.8)  # images differ in how hard they are
        boxes = np.c_[corner, sides] * 1.0 + rng.normal(0, spread, (count, 4)) * sides[:, [0, 1, 0, 1]]
        boxes = np.r_[boxes, np.c_[rng.uniform(0, 400, (2, 2)), rng.uniform(30, 150, (2, 2))]]
        scores = np.r_[rng.beta(5, 2, count), rng.beta(2, 4, 2)]
        found += [
            {"image_id": id_, "category_id": 3, "bbox": box, "score": score, "level": 4}
            for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)
        ]
    return split(*records), found


def scored(records: Records, predictions: list[Prediction]) -> Any:
    return coco_metrics(to_coco(records), predictions)


def test_intervals_hold_the_ap_of_other_images_as_often_as_they_say() -> None:
    """Sixty test sets of 60 images each; the truth is the mean AP of such sets."""
    sets = [population(seed, 60) for seed in range(60)]
    figures = [scored(*each)["AP"] for each in sets]
    truth = float(np.mean(figures))
    hits = 0
    for (records, predictions), figure in zip(sets, figures, strict=True):
        found = intervals(records, tabulate(records, predictions), {"AP": figure, "AP50": 0.5}, draws=200)
        low, high = found["AP"]
        assert low < figure < high
        hits += low < truth < high
    assert 51 <= hits <= 60  # 57 expected; 51 or fewer are less likely than 1%


def test_a_better_detector_is_told_from_an_equal_one() -> None:
    records, predictions = population(1, 80)
    _, better = population(1, 80, quality=0.05)
    rng = np.random.default_rng(5)
    equal = copy.deepcopy(predictions)
    for entry in equal:
        entry["bbox"] = [value + float(rng.normal(0, 0.5)) for value in entry["bbox"]]

    def compared(others: list[Prediction]) -> confidence.Difference:
        first = (tabulate(records, predictions), scored(records, predictions))
        found = difference(records, first, (tabulate(records, others), scored(records, others)))
        assert found is not None
        return found

    gain = compared(better)
    assert gain.is_clear and gain.ap > 0.1 and gain.interval[0] > 0
    assert not compared(equal).is_clear
    same = compared(predictions)
    assert (same.ap, same.interval, same.is_clear) == (0.0, (0.0, 0.0), False)


def test_images_drawn_are_the_same_each_time() -> None:
    records, predictions = made_up(0)
    table = tabulate(records, predictions)
    assert np.array_equal(bootstrap(records, table, 20).ap, bootstrap(records, table, 20).ap)


def test_without_boxes_there_is_no_interval() -> None:
    records = split(record(1, [], []))
    assert intervals(records, tabulate(records, []), {"AP": None, "AP50": None}) == {}
    one = split(record(1, [[0, 0, 9, 9]], [0]), record(2, [], []))
    found = intervals(one, tabulate(one, []), {"AP": 0.0, "AP50": 0.0})
    assert found == {"AP": (0.0, 0.0), "AP50": (0.0, 0.0)}
