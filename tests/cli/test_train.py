"""``fsaf train`` and ``report``: exit statuses, one message for a mistake, no files after a failure."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cli.commands import refused, write_recipe
from fsaf.cli import main

pytestmark = pytest.mark.slow


def test_train_evaluate_and_report(
    root: Path, tmp_path: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", write_recipe(tmp_path, root), "--train.epochs", "1"]) == 0
    out, _ = capsys.readouterr()
    assert str(tmp_path / "out") in out
    best = tmp_path / "out" / "checkpoints" / "best.pt"
    trained = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert main(["evaluate", str(best), "--out", str(tmp_path / "scores")]) == 0
    out, _ = capsys.readouterr()
    assert "AP50" in out and "green" in out and "img/s" in out
    again = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    assert again["AP"] == pytest.approx(trained["AP"], abs=1e-6)
    for run in (tmp_path / "out", tmp_path / "scores"):
        page = (run / "report.html").read_text(encoding="utf-8")
        assert "Confusion" in page and "Commands" in page and "could not be read" not in page
    page = tmp_path / "both.html"
    assert main(["report", str(tmp_path / "out"), str(tmp_path / "scores"), "--out", str(page)]) == 0
    assert capsys.readouterr().out == f"{page}\n" and "2 runs side by side" in page.read_text()
    assert not list(here.iterdir()), "nothing is left in the working directory"


def test_mistakes_in_reports(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run").mkdir()
    (here / "file").write_text("mine")
    for options, told in (
        (["nowhere"], ["nowhere: no such run folder"]),
        (["file"], ["file: no such run folder"]),
        (["run"], ["run: is not a run folder", "metrics.jsonl"]),
        (["run", "--data.root", "x"], ["--data.root"]),
    ):
        refused(capsys, ["report", *options], *told)
    (here / "run" / "evaluation.json").write_text("{}")
    refused(capsys, ["report", "run", "--out", "run"], "--out run: is a folder", "run/report.html")
    refused(capsys, ["report", "run", "--out", "file/x.html"], "file/x.html: cannot be written")
    refused(capsys, ["report", "run", "run"], "run: given twice")
    assert sorted(path.name for path in here.rglob("*")) == ["evaluation.json", "file", "run"]


def test_a_report_that_cannot_be_made_fails_nothing(
    checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "report.html").mkdir()
    assert main(["evaluate", str(checkpoint), "--out", "."]) == 0
    assert "note: report.html could not be written" in capsys.readouterr().err
    assert (here / "evaluation.json").is_file()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--optim.speed", "3"], ["--optim.speed"]),
        (["--nonsense"], ["--nonsense"]),
        (["--optim.lr", "fast"], ["optim.lr", "fast"]),
        (["--optim.lr=0"], ["optim.lr = 0.0", "above 0"]),
        (["--data.root", "nowhere"], ["nowhere/annotations/train.json", "no such file", "--data.root"]),
        (["--data.train.images", "nowhere"], ["nowhere", "no such image folder"]),
        (["--data.train.annotations=null"], ["data.train.annotations is not set"]),
        (["--device", "abacus"], ["'abacus'"]),
        (["--init", "none.pt"], ["none.pt: no such checkpoint"]),
        (["--resume", "true"], ["last.pt: no such checkpoint"]),
        (["--model.backbone", "resnet5000"], ["resnet5000"]),
        (["--model.weights", "none.pth"], ["none.pth"]),
        (["--out", "file"], ["file: is a file", "--out"]),
        (["--out", "file/deeper/run"], ["file: is a file", "--out"]),
    ],
)
def test_mistakes_in_training(
    root: Path, here: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: list[str]
) -> None:
    (here / "file").write_text("mine")
    path = write_recipe(here, root)
    refused(capsys, ["train", path, *options], *told)
    assert sorted(p.name for p in here.iterdir()) == ["file", "recipe.yaml"]
    assert (here / "file").read_text() == "mine"


def test_a_recipe_that_does_not_exist(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, ["train", "nothing.yaml"], "nothing.yaml", "bccd_lite0")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: "{}", ["not COCO JSON", "'images'"]),
        (lambda data: "no JSON", ["not readable as JSON"]),
        (lambda data: json.dumps({**data, "annotations": []}), ["no boxes at all"]),
        (lambda data: json.dumps({**data, "categories": data["categories"][:1]}), ["has category"]),
        (lambda data: json.dumps({**data, "images": data["images"][1:]}), ["image 11", "not listed"]),
    ],
)
def test_annotations_that_cannot_be_used(
    copy: Path, here: Path, capsys: pytest.CaptureFixture[str], damage: Any, told: list[str]
) -> None:
    path = copy / "annotations" / "train.json"
    path.write_text(damage(json.loads(path.read_text())))
    refused(capsys, ["train", write_recipe(here, copy)], str(path), *told)
    assert not (here / "out").exists()


def test_validation_data_is_checked_before_training(
    copy: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "annotations" / "val.json"
    data = json.loads(path.read_text())
    data["categories"][0]["name"] = "scarlet"
    path.write_text(json.dumps(data))
    refused(capsys, ["train", write_recipe(here, copy)], str(path), "scarlet")
    path.write_text(json.dumps({**data, "images": [], "annotations": [], "categories": []}))
    refused(capsys, ["train", write_recipe(here, copy)], str(path), "'categories' is empty")
    assert not (here / "out").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_does_not_decode(
    copy: Path, here: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    path = copy / "images" / "train" / "0013.png"
    path.write_text("no image")
    refused(
        capsys, ["train", write_recipe(here, copy), f"--data.workers={workers}"], str(path), "does not decode"
    )
    assert not (here / "out" / "checkpoints").exists()


def test_init_from_a_file_that_contradicts_itself(
    root: Path, here: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    for name in ("head.classes.weight", "head.classes.bias"):
        content["model"][name] = content["model"][name][:2]
    torch.save(content, here / "two.pt")
    wrong = "head.classes.weight: [2, 64, 3, 3] in the file"
    refused(capsys, ["train", write_recipe(here, root), "--init", "two.pt"], "two.pt", wrong)
    assert not (here / "out").exists()


def test_blood_cells_from_recipe_to_pictures(
    test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, images = tmp_path / "run", test_data / "bccd" / "images"
    small = ["--data.shapes=[[96, 128]]", "--data.short_side=96", "--data.long_side=128", "--data.workers=0"]
    options = [f"--data.root={test_data / 'bccd'}", f"--out={run}", "--train.max_steps=3", "--device=cpu"]
    assert main(["train", "bccd_lite0", *small, *options, "--train.evaluate_every=0"]) == 0
    last = str(run / "checkpoints" / "last.pt")
    capsys.readouterr()

    assert main(["evaluate", last, "--predict.score_threshold=0.01"]) == 0
    out, _ = capsys.readouterr()
    metrics = json.loads((run / "evaluation.json").read_text())
    assert metrics["images"] == 72 and set(metrics["per_class"]) == {"RBC", "WBC", "Platelets"}
    assert "Platelets" in out and "72 images" in out
    found = json.loads((run / "predictions.json").read_text())
    assert {entry["category_id"] for entry in found} <= {1, 2, 3}
    for x, y, width, height in (entry["bbox"] for entry in found):
        assert x >= 0 and y >= 0 and x + width <= 640.01 and y + height <= 480.01

    pictures = [str(images / f"BloodImage_{i:05d}.jpg") for i in (7, 0)]
    assert main(["predict", last, *pictures, "--format", "json", "--score-threshold", "0.01"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == pictures
    assert all(line["size"] == [480, 640] for line in lines)
    by_image = [entry for entry in found if entry["image_id"] == 8]  # BloodImage_00007
    assert len(lines[0]["detections"]) == len(by_image)

    assert main(["predict", last, *pictures, "--out", str(tmp_path / "drawn")]) == 0
    for path in pictures:
        with Image.open(tmp_path / "drawn" / f"{Path(path).stem}.png") as image:
            assert image.size == (640, 480)
