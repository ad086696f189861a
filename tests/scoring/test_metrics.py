"""COCO's metrics against pycocotools, and on unusual inputs."""

import contextlib
import copy
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fsaf.errors import UserError
from fsaf.scoring.metrics import METRICS, coco_metrics


def reference(
    data: dict[str, Any], predictions: list[dict[str, Any]], image_ids: list[int] | None = None
) -> tuple[list[float], dict[int, tuple[float, float]]]:
    """Return the twelve figures of pycocotools, and (AP, AP50) of each category id."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(data)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(predictions)), "bbox")
        if image_ids is not None:
            evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"]

    def mean(values: np.ndarray) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else -1.0

    each = {
        id_: (mean(precision[:, :, k, 0, 2]), mean(precision[0, :, k, 0, 2]))
        for k, id_ in enumerate(evaluation.params.catIds)
    }
    return [float(value) for value in evaluation.stats], each


def assert_same(data: dict[str, Any], predictions: list[dict[str, Any]], image_ids: list[int] | None = None):
    metrics = coco_metrics(data, predictions, image_ids)
    stats, each = reference(data, predictions, image_ids)
    ours = [-1.0 if metrics[key] is None else metrics[key] for key in METRICS]
    assert ours == pytest.approx(stats, abs=1e-12)
    names = {entry["id"]: entry["name"] for entry in data["categories"]}
    assert list(metrics["per_class"]) == [names[id_] for id_ in sorted(names)]
    for id_, expected in each.items():
        row = metrics["per_class"][names[id_]]
        assert [-1.0 if row[key] is None else row[key] for key in ("AP", "AP50")] == pytest.approx(
            expected, abs=1e-12
        )
    return metrics


def made_up(rng: np.random.Generator, images: int = 12, crowd: float = 0.1) -> dict[str, Any]:
    """Return images 0..n-1 in odd order, some empty, and sparse category ids; the last has no object."""
    ids = (rng.permutation(images) * 7).tolist()
    annotations: list[dict[str, Any]] = []
    for image in ids[: images - 2]:
        for _ in range(int(rng.integers(0, 9))):
            width, height = np.exp(rng.uniform(math.log(5), math.log(250), 2))
            annotations.append(
                {
                    "id": 10 + len(annotations),
                    "image_id": image,
                    "category_id": int(rng.choice([3, 17, 90])),
                    "bbox": [float(v) for v in (*rng.uniform(0, 300, 2), width, height)],
                    "area": float(width * height * rng.uniform(0.4, 1)),
                    "iscrowd": int(rng.random() < crowd),
                }
            )
    categories = [{"id": id_, "name": f"class {id_}"} for id_ in (90, 3, 17, 40)]
    images_ = [{"id": id_, "width": 640, "height": 640, "file_name": f"{id_}.jpg"} for id_ in ids]
    return {"images": images_, "annotations": annotations, "categories": categories}


def jittered(
    data: dict[str, Any], rng: np.random.Generator, decimals: int = 6, extra: int = 3
) -> list[dict[str, Any]]:
    """Return predictions near the ground truth: some missed, doubled, of a wrong class, and false alarms."""
    ids = [entry["id"] for entry in data["categories"]]
    found: list[dict[str, Any]] = []

    def add(image_id: int, category_id: int, bbox: np.ndarray) -> None:
        score = round(float(rng.random()), decimals)
        found.append(
            {"image_id": image_id, "category_id": category_id, "bbox": bbox.tolist(), "score": score}
        )

    for entry in data["annotations"]:
        for _ in range(int(rng.choice([0, 1, 2], p=[0.15, 0.65, 0.2]))):
            box = np.array(entry["bbox"])
            size = box[[2, 3, 2, 3]]
            box = box + size * rng.normal(0, rng.choice([0.01, 0.08, 0.25]), 4)
            box[2:] = np.maximum(box[2:], 1)
            wrong = rng.random() < 0.1
            add(entry["image_id"], int(rng.choice(ids)) if wrong else entry["category_id"], box)
    for image in data["images"]:
        for _ in range(extra):
            add(image["id"], int(rng.choice(ids)), np.r_[rng.uniform(0, 300, 2), rng.uniform(5, 200, 2)])
    rng.shuffle(found)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_equals_pycocotools_on_random_sets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = made_up(rng)
    metrics = assert_same(data, jittered(data, rng))
    assert 0 < metrics["AP"] < metrics["AP50"] < 1
    assert metrics["per_class"]["class 40"] == {"AP": None, "AP50": None, "boxes": 0}


@pytest.mark.parametrize("seed", range(3))
def test_equals_pycocotools_with_tied_scores(seed: int) -> None:
    """With one decimal most scores are equal, so order decides."""
    rng = np.random.default_rng(100 + seed)
    data = made_up(rng)
    assert_same(data, jittered(data, rng, decimals=1))


def test_equals_pycocotools_with_more_detections_than_count() -> None:
    rng = np.random.default_rng(7)
    data = made_up(rng, images=4)
    assert_same(data, jittered(data, rng, extra=450))


@pytest.mark.parametrize("name", ["bccd", "minicoco"])
def test_equals_pycocotools_on_real_sets(test_data: Path, name: str) -> None:
    path = test_data / name / "annotations" / "instances_val.json"
    data = json.loads(path.read_text())
    predictions = jittered(data, np.random.default_rng(1))
    assert coco_metrics(path, predictions) == assert_same(data, predictions)


def test_only_the_images_asked_for() -> None:
    rng = np.random.default_rng(3)
    data = made_up(rng)
    predictions = jittered(data, rng)
    some = [image["id"] for image in data["images"]][:5]
    metrics = assert_same(data, predictions, some)
    assert metrics["AP"] != coco_metrics(data, predictions)["AP"]
    assert sum(row["boxes"] for row in metrics["per_class"].values()) == sum(
        entry["image_id"] in some and not entry["iscrowd"] for entry in data["annotations"]
    )


def test_only_the_categories_asked_for() -> None:
    rng = np.random.default_rng(3)
    data = made_up(rng)
    predictions = jittered(data, rng)
    metrics = coco_metrics(data, predictions, category_ids=[90, 3])
    every = coco_metrics(data, predictions)["per_class"]
    assert metrics["per_class"] == {name: every[name] for name in ("class 3", "class 90")}
    assert metrics["AP"] == pytest.approx((every["class 3"]["AP"] + every["class 90"]["AP"]) / 2)


def test_perfect_predictions_score_one() -> None:
    data = made_up(np.random.default_rng(0), crowd=0)
    predictions = [{**entry, "score": 0.9} for entry in data["annotations"]]
    metrics = coco_metrics(data, predictions)
    assert metrics["AP"] == pytest.approx(1) and metrics["AR100"] == pytest.approx(1)
    assert sum(row["boxes"] for row in metrics["per_class"].values()) == len(data["annotations"])


def test_no_predictions_score_zero() -> None:
    metrics = coco_metrics(made_up(np.random.default_rng(0)), [])
    assert [metrics[key] for key in METRICS] == [0.0] * 12
    assert metrics["per_class"]["class 3"]["AP"] == 0.0
    assert metrics["per_class"]["class 40"]["AP"] is None


def test_no_ground_truth_has_no_figures() -> None:
    data = {**made_up(np.random.default_rng(0)), "annotations": []}
    for predictions in ([], jittered(data, np.random.default_rng(0))):
        metrics = coco_metrics(data, predictions)
        assert [metrics[key] for key in METRICS] == [None] * 12
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_a_detection_in_a_crowd_region_is_no_false_alarm() -> None:
    data = {
        "images": [{"id": 1}],
        "categories": [{"id": 5, "name": "a"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, 20, 20]},
            {"id": 2, "image_id": 1, "category_id": 5, "bbox": [100, 0, 200, 200], "iscrowd": 1},
        ],
    }

    def at(x: float, score: float) -> dict[str, Any]:
        return {"image_id": 1, "category_id": 5, "bbox": [x, 0, 20, 20], "score": score}

    assert coco_metrics(data, [at(120, 0.9), at(150, 0.8), at(0, 0.7)])["AP"] == pytest.approx(1)
    assert coco_metrics(data, [at(50, 0.9), at(0, 0.7)])["AP"] == pytest.approx(0.5)
    assert coco_metrics(data, [])["per_class"]["a"]["boxes"] == 1


def test_area_and_crowd_are_optional_and_the_callers_data_stays() -> None:
    rng = np.random.default_rng(5)
    full = made_up(rng, crowd=0)
    for entry in full["annotations"]:
        entry["area"] = entry["bbox"][2] * entry["bbox"][3]
    bare = copy.deepcopy(full)
    for entry in bare["annotations"]:
        del entry["area"], entry["iscrowd"]
    predictions = jittered(full, rng)
    before = copy.deepcopy((bare, predictions))
    assert coco_metrics(bare, predictions) == assert_same(full, predictions)
    assert (bare, predictions) == before


def test_predictions_may_hold_numpys_numbers_and_stay_as_they_were() -> None:
    rng = np.random.default_rng(5)
    data = made_up(rng)
    plain = jittered(data, rng)
    arrays = [
        {
            "image_id": np.int64(entry["image_id"]),
            "category_id": np.int32(entry["category_id"]),
            "bbox": np.array(entry["bbox"]),
            "score": np.float64(entry["score"]),
        }
        for entry in plain
    ]
    before = copy.deepcopy(arrays)
    assert coco_metrics(data, arrays) == coco_metrics(data, plain)
    np.testing.assert_equal(arrays, before)


def test_annotation_id_zero_matches_like_any_other() -> None:
    """COCO's own code takes id 0 for "no match"; pycocotools on ids from 1 is the reference."""
    rng = np.random.default_rng(5)
    data = made_up(rng)
    predictions = jittered(data, rng)
    expected = assert_same(data, predictions)
    for i, entry in enumerate(data["annotations"]):
        entry["id"] = i
    assert coco_metrics(data, predictions) == expected


def test_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    data = made_up(np.random.default_rng(0))
    coco_metrics(data, jittered(data, np.random.default_rng(0)))
    assert capfd.readouterr() == ("", "")


def test_classes_of_the_same_name_are_told_apart() -> None:
    data = made_up(np.random.default_rng(0))
    for entry in data["categories"]:
        entry["name"] = "x" if entry["id"] < 50 else "y"
    assert list(coco_metrics(data, [])["per_class"]) == ["x (3)", "x (17)", "x (40)", "y"]


def test_unknown_ids_and_other_json_are_the_users_mistake(tmp_path: Path) -> None:
    data = made_up(np.random.default_rng(0))
    stray = [{"image_id": 12345, "category_id": 3, "bbox": [0, 0, 1, 1], "score": 0.5}]
    with pytest.raises(UserError, match="12345"):
        coco_metrics(data, stray)
    with pytest.raises(UserError, match="999"):
        coco_metrics(data, [], image_ids=[999])
    with pytest.raises(UserError, match=r"none\.json"):
        coco_metrics(tmp_path / "none.json", [])
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(UserError, match=r"list\.json"):
        coco_metrics(tmp_path / "list.json", [])
