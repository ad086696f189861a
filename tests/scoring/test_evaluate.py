"""Evaluation of a perfect detector and a bad one, and its files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fsaf.config import Config, DataConfig, PredictConfig, SplitConfig
from fsaf.data.readers.coco import read_coco
from fsaf.data.readers.splits import open_split
from fsaf.data.records import Classes, Records
from fsaf.detection.detector import Detector
from fsaf.errors import UserError
from fsaf.processes import group
from fsaf.recipe import build_config
from fsaf.scoring.evaluate import evaluate
from fsaf.scoring.metrics import METRICS
from fsaf.scoring.results import write_evaluation
from synthetic import CLASSES, NAMES, Picture, SeesBadly, SeesColours, write_coco

DATA = DataConfig(batch_size=2, workers=0, short_side=64, long_side=96, shapes=[(64, 96), (96, 64)])
PICTURES = [
    Picture(height=128, width=192, objects=[(20, 30, 60, 40, 7), (100, 64, 80, 60, 3)]),
    Picture(height=64, width=96, objects=[(8, 8, 20, 16, 90)]),
    Picture(height=96, width=64, objects=[(10, 20, 40, 60, 3)], crowds=[(0, 0, 64, 18, 7)]),
    Picture(height=256, width=384),
    Picture(height=256, width=384, objects=[(0, 0, 384, 64, 90), (16, 80, 200, 160, 7)]),
]


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return read_coco(write_coco(tmp_path, PICTURES, "val"), tmp_path / "images" / "val")


@pytest.mark.parametrize("workers", [0, 1])
def test_boxes_on_the_ground_truth_give_one(records: Records, workers: int) -> None:
    detector = Detector(SeesColours().eval(), CLASSES, Config(data=DATA))
    metrics, predictions = evaluate(detector, records, replace(DATA, workers=workers))
    assert metrics["AP"] == metrics["AP50"] == metrics["AP75"] == metrics["AR100"] == 1.0
    assert {name: row["AP"] for name, row in metrics["per_class"].items()} == dict.fromkeys(
        NAMES.values(), 1.0
    )
    assert metrics["images"] == 5 and metrics["images_per_second"] > 0
    assert {prediction["level"] for prediction in predictions} == {3}  # all detections are from P3
    assert metrics["boxes_by_size"] == {"small": 1, "medium": 3, "large": 2}
    truth = json.loads(records.source.read_text())["annotations"]
    expected = sorted((a["image_id"], a["category_id"], a["bbox"]) for a in truth if not a["iscrowd"])
    found = sorted((p["image_id"], p["category_id"], p["bbox"]) for p in predictions)
    assert [entry[:2] for entry in found] == [entry[:2] for entry in expected]
    np.testing.assert_allclose([e[2] for e in found], [e[2] for e in expected], atol=0.01)


def test_the_wrong_classes_give_zero(records: Records) -> None:
    swapped = Classes(names=("red", "green", "blue"), ids=(7, 3, 90))
    detector = Detector(SeesColours().eval(), swapped, Config(data=DATA))
    metrics, _ = evaluate(detector, records, DATA)
    assert metrics["per_class"]["red"]["AP"] == metrics["per_class"]["green"]["AP"] == 0
    assert metrics["per_class"]["blue"]["AP"] == 1 and metrics["AP"] == pytest.approx(1 / 3)


def test_several_views_give_the_same_boxes(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Detector(SeesColours().eval(), CLASSES, Config(data=DATA))
    _, plain = evaluate(detector, records, DATA)
    detector.config.predict = PredictConfig(flip=True, scales=[1.0, 2.0])
    metrics, found = evaluate(detector, records, DATA)
    assert metrics["AP50"] == metrics["per_class"]["red"]["AP50"] == 1.0
    plain.sort(key=lambda entry: entry["image_id"])  # batches of one shape; views come in order of the images
    for key in ("image_id", "category_id"):
        assert [entry[key] for entry in found] == [entry[key] for entry in plain]
    np.testing.assert_allclose([e["bbox"] for e in found], [e["bbox"] for e in plain], atol=2)
    # Two processes take the batches in turn.
    shares = []
    monkeypatch.setattr(group, "processes", lambda: 2)
    monkeypatch.setattr(group, "from_main", lambda function: function())
    for rank in (0, 1):
        monkeypatch.setattr(group, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(group, "gather", lambda mine: shares.append(mine) or [mine])
        evaluate(detector, records, DATA)
    monkeypatch.setattr(group, "gather", lambda mine: shares)
    assert evaluate(detector, records, DATA)[1] == found
    assert [len({e["image_id"] for batch in share for e in batch}) for share in shares] == [3, 1]


@pytest.mark.parametrize("labelled", ["rotated", "stored"])
@pytest.mark.parametrize("views", [False, True])
def test_images_with_a_rotation_tag_are_read_as_they_were_labelled(
    tmp_path: Path, labelled: str, views: bool
) -> None:
    annotations = write_coco(tmp_path, PICTURES[:2], "val")
    for path in (tmp_path / "images" / "val").iterdir():
        with Image.open(path) as image:
            stored = image.transpose(Image.Transpose.ROTATE_90) if labelled == "rotated" else image.copy()
        exif = Image.Exif()
        exif[0x0112] = 6  # a viewer turns the stored pixels a quarter clockwise
        stored.save(path, exif=exif)
    data = DataConfig(
        train=SplitConfig(),
        val=SplitConfig(annotations=str(annotations), images=str(tmp_path / "images/val")),
    )
    detector = Detector(SeesColours().eval(), CLASSES, Config(data=DATA))
    detector.config.predict = PredictConfig(flip=views)
    metrics, _ = evaluate(detector, open_split(data, "val"), DATA)
    assert metrics["AP50"] == pytest.approx(1)


def test_nothing_found_gives_zero_and_empty_predictions(records: Records) -> None:
    detector = Detector(SeesColours().eval(), CLASSES, Config(data=DATA))
    detector.config.predict.score_threshold = 0.99999
    metrics, predictions = evaluate(detector, records, DATA)
    assert predictions == [] and metrics["AP"] == 0.0


def test_written_files_scored_again_by_pycocotools(
    records: Records, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = Detector(SeesBadly().eval(), CLASSES, Config(data=DATA))
    write_evaluation(tmp_path / "out", *evaluate(detector, records, DATA), DATA, CLASSES)
    written = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert build_config({"data": written["data"]}, where="evaluation.json").data == DATA
    assert Classes(**{k: tuple(v) for k, v in written["classes"].items()}) == CLASSES
    assert '"level": ' in (tmp_path / "out" / "predictions.json").read_text()  # COCO's tools ignore it
    truth = COCO(str(records.source))
    scored = COCOeval(truth, truth.loadRes(str(tmp_path / "out" / "predictions.json")), "bbox")
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    assert 0.02 < written["AP"] < 0.98
    for key, value in zip(METRICS, scored.stats, strict=True):
        assert (-1 if written[key] is None else written[key]) == pytest.approx(value, abs=1e-6)
    for k, category in enumerate(sorted(NAMES)):
        precision = scored.eval["precision"][:, :, k, 0, -1]
        assert written["per_class"][NAMES[category]]["AP"] == pytest.approx(precision.mean(), abs=1e-6)


def test_predictions_of_files_larger_than_listed_are_in_pixels_of_the_file(tmp_path: Path) -> None:
    annotations = write_coco(tmp_path, [Picture(height=64, width=96, objects=[(8, 8, 20, 16, 90)])], "val")
    path = tmp_path / "images" / "val" / "0011.png"
    with Image.open(path) as image:
        image.resize((192, 128), Image.Resampling.NEAREST).save(path)
    detector = Detector(SeesColours().eval(), CLASSES, Config(data=DATA))
    _, (found,) = evaluate(detector, read_coco(annotations, path.parent), DATA)
    assert found["bbox"] == pytest.approx([16, 16, 40, 32], abs=1e-2)
    assert detector.predict(path).boxes[0].tolist() == pytest.approx([16, 16, 56, 48], abs=1e-2)


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_evaluation(tmp_path, {"AP": 0.5}, [])
    with pytest.raises(TypeError):
        write_evaluation(tmp_path, {"AP": 0.6}, [{"bbox": object()}])
    assert json.loads((tmp_path / "predictions.json").read_text()) == []
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"evaluation\.json: cannot be written"):
        write_evaluation(tmp_path / "file", {"AP": 0.5}, [])
    assert (tmp_path / "file").read_text() == "mine"
