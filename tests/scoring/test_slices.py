"""Shares of boxes that are found, against counting by hand; AP, against pycocotools and a plain loop."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fsaf.boxes import iou
from fsaf.config import DataConfig, SplitConfig
from fsaf.data.readers.splits import open_split
from fsaf.data.records import ImageRecord, ground_truth, to_coco
from fsaf.scoring.matching import match_boxes, tabulate
from fsaf.scoring.slices import CROWDING, Slice, found_boxes, slice_aps
from scoring.test_analysis import CLASSES, made_up, record, split
from scoring.test_metrics import jittered


def slices_of(
    records: object, rows: list[tuple[int, int, float, float, float, float]]
) -> dict[str, list[Slice]]:
    """Return the slices for rows of image, category, x, y, side, score."""
    predictions = [
        {"image_id": image, "category_id": kind, "bbox": [x, y, side, side], "score": score}
        for image, kind, x, y, side, score in rows
    ]
    table = tabulate(records, predictions)  # type: ignore[arg-type]
    return found_boxes(records, predictions, table, match_boxes(records, table))  # type: ignore[arg-type]


def test_each_slice_counts_its_boxes() -> None:
    alone = record(1, [[0, 0, 10, 10]], [0])
    many = record(2, [[0, 0, 10, 10], [50, 50, 100, 100], [200, 200, 400, 400]], [0, 1, 1])
    found = slices_of(
        split(alone, many),
        [
            (1, 3, 0, 0, 10, 0.9),
            (2, 3, 0, 0, 10, 0.29),  # under the threshold
            (2, 17, 50, 50, 50, 0.8),
            (2, 3, 200, 200, 200, 0.8),  # another class
        ],
    )
    told = {
        kind: {row.name: (row.boxes, row.images, row.found) for row in rows} for kind, rows in found.items()
    }
    assert told["Size"] == {"small": (2, 2, 0.5), "medium": (1, 1, 1.0), "large": (1, 1, 0.0)}
    assert told["Boxes in the image"] == {
        "alone in its image": (1, 1, 1.0),
        "2 to 5": (3, 1, pytest.approx(1 / 3)),
    }
    assert [row[0] for row in told["Class"].values()] == [2, 2]
    assert [row[2] for row in told["Class"].values()] == [0.5, 0.5]
    assert {row.name for rows in found.values() for row in rows if row.interval is None} >= {
        "medium",
        "large",
    }


def test_the_interval_is_that_of_a_share_of_independent_images() -> None:
    """A box in each of 400 images, 100 of them found: the interval of a binomial share."""
    images = [record(i, [[0, 0, 10, 10]], [0]) for i in range(1, 401)]
    found = slices_of(split(*images), [(i, 3, 0, 0, 10, 0.9) for i in range(1, 101)])
    (row,) = found["Size"]
    expected = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert row.found == 0.25 and row.interval is not None
    assert row.interval == pytest.approx((0.25 - expected, 0.25 + expected), abs=0.006)


def test_a_split_without_boxes_has_no_slices() -> None:
    assert slices_of(split(record(1, [], [])), [(1, 3, 0, 0, 9, 0.5)]) == {}


Predictions = list[dict[str, Any]]


def pycocotools_ap(
    truth: dict[str, Any],
    predictions: Predictions,
    area: tuple[float, float] = (0, 1e10),
    category: int | None = None,
) -> float | None:
    """Return AP with ``areaRng`` of one range, of one category or of all."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        scored = COCOeval(coco, coco.loadRes(predictions), "bbox")
        scored.params.areaRng, scored.params.areaRngLbl = [list(area)], ["all"]
        scored.params.catIds = scored.params.catIds if category is None else [category]
        scored.evaluate()
        scored.accumulate()
    precision = scored.eval["precision"][..., -1]
    return float(precision[precision > -1].mean()) if (precision > -1).any() else None


def ap_by_loop(images: list[ImageRecord], predictions: Predictions) -> float:
    """Return the AP of images: the mean over thresholds, and over the classes that they have boxes of."""
    figures = []
    for label, category in enumerate(CLASSES.ids):
        boxes = sum(int((image.labels[~image.crowd] == label).sum()) for image in images)
        for threshold in np.linspace(0.5, 0.95, 10) if boxes else []:
            judged = []
            for image in images:
                mine = [p for p in predictions if (p["image_id"], p["category_id"]) == (image.id, category)]
                judged += judge(image, label, mine, threshold)
            judged.sort(key=lambda each: -each[0])
            right = np.cumsum([is_right for _, is_right in judged])
            precision, recall = right / np.arange(1, len(judged) + 1), right / boxes
            reached = [precision[recall >= point - 1e-9] for point in np.linspace(0, 1, 101)]
            figures.append(np.mean([max(each, default=0.0) for each in reached]))
    return float(np.mean(figures))


def judge(
    image: ImageRecord, label: int, predictions: Predictions, threshold: float
) -> list[tuple[float, bool]]:
    """Return score and right or wrong of predictions of a class; those in crowd regions are left out."""
    free = [box for box in image.boxes[(image.labels == label) & ~image.crowd].astype(float)]
    regions = image.boxes[(image.labels == label) & image.crowd].astype(float)
    judged = []
    for each in sorted(predictions, key=lambda p: -p["score"]):
        x, y, width, height = each["bbox"]
        box = np.array([x, y, x + width, y + height])
        overlaps = [iou(box, other) for other in free]
        if overlaps and max(overlaps) >= threshold:
            free.pop(int(np.argmax(overlaps)))
            judged.append((each["score"], True))
        elif not any(share_inside(box, region) >= threshold for region in regions):
            judged.append((each["score"], False))
    return judged


def share_inside(box: np.ndarray, region: np.ndarray) -> float:
    sides = np.clip(np.minimum(box[2:], region[2:]) - np.maximum(box[:2], region[:2]), 0, None)
    return float(sides.prod() / (box[2:] - box[:2]).prod())


@pytest.mark.parametrize("seed", range(4))
def test_ap_of_each_slice(seed: int) -> None:
    records, predictions = made_up(seed, images=30)
    for i, each in enumerate(predictions):
        each["score"] += i * 1e-6  # no equal scores, whose order is a matter of taste
    aps = slice_aps(records, predictions)
    truth = to_coco(records)
    for found, area in zip(aps["Size"], ((0, 32**2), (32**2, 96**2), (96**2, 1e10)), strict=True):
        assert found == pytest.approx(pycocotools_ap(truth, predictions, area), abs=1e-12)
    for found, category in zip(aps["Class"], CLASSES.ids, strict=True):
        assert found == pytest.approx(pycocotools_ap(truth, predictions, category=category), abs=1e-12)
    low = 1
    for found, (_, high) in zip(aps["Boxes in the image"], CROWDING, strict=True):
        images = [i for i in records.images if low <= (~i.crowd).sum() <= (high or 1000)]
        assert found == (pytest.approx(ap_by_loop(images, predictions), abs=1e-12) if images else None)
        low = (high or 0) + 1
    assert sum(each is not None for each in aps["Boxes in the image"]) == 3
    shown = found_boxes(
        records, predictions, (table := tabulate(records, predictions)), match_boxes(records, table)
    )
    assert [row.ap for row in shown["Size"]] == aps["Size"]
    assert [row.ap for row in shown["Class"]] == aps["Class"][:3]  # the fourth has no boxes
    assert [row.ap for row in shown["Boxes in the image"]] == aps["Boxes in the image"][:3]


def test_what_lies_outside_a_size_does_not_lower_its_ap() -> None:
    """A missed large box and a wrong large detection cost the large ones alone."""
    both = record(1, [[0, 0, 20, 20], [100, 100, 300, 300]], [0, 0])
    found = slices_of(split(both), [(1, 3, 0, 0, 20, 0.5), (1, 3, 300, 300, 200, 0.9)])
    assert {row.name: row.ap for row in found["Size"]} == {"small": pytest.approx(1), "large": 0}
    (row,) = found["Boxes in the image"]
    assert row.ap == pytest.approx(
        51 / 101 / 2
    )  # right at a precision of one half, up to a recall of one half


def test_sizes_are_by_the_area_of_the_annotations(test_data: Path) -> None:
    """COCO's is that of the outline, not of the box."""
    place = test_data / "minicoco"
    records = open_split(
        DataConfig(
            val=SplitConfig(
                annotations=str(place / "annotations" / "instances_val.json"), images=str(place / "images")
            )
        ),
        "val",
    )
    truth = ground_truth(records)
    predictions = jittered(dict(truth), np.random.default_rng(1))
    table = tabulate(records, predictions)
    rows = {
        row.name: row for row in found_boxes(records, predictions, table, match_boxes(records, table))["Size"]
    }
    areas = np.array([each["area"] for each in truth["annotations"] if not each["iscrowd"]])
    assert rows["small"].boxes == (areas < 32**2).sum() != 0
    assert rows["large"].ap == pytest.approx(
        pycocotools_ap(dict(truth), predictions, (96**2, 1e10)), abs=1e-12
    )
