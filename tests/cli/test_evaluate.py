"""``fsaf evaluate``: other classes, output folders, one message for a mistake."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.commands import refused
from fsaf.cli import main
from fsaf.data.readers import coco
from fsaf.data.readers.coco import read_json
from fsaf.scoring import metrics
from synthetic import COLORS


def test_mistakes_in_evaluation(
    checkpoint: Path, root: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(root.rglob("*"))
    (here / "file").write_text("mine")
    ours = str(checkpoint)
    for options, told in (
        (["none.pt"], ["none.pt: no such checkpoint"]),
        (["file"], ["file: not a readable checkpoint"]),
        ([ours, "--out", "file"], ["file: is a file"]),
        ([ours, "--device", "abacus"], ["'abacus'"]),
        ([ours, "--optim.lr", "1"], ["--optim.lr", "belongs to fsaf train"]),
        ([ours, "--data.speed", "1"], ["--data.speed"]),
        ([ours, "--predict.nms_iou", "2"], ["predict.nms_iou = 2"]),
        ([ours, "--data.val.annotations", "none.json"], ["none.json", "no such file"]),
        ([ours, "--data.val.images", "nowhere"], ["nowhere", "no such image folder"]),
    ):
        refused(capsys, ["evaluate", *options], *told)
    assert sorted(root.rglob("*")) == before
    assert [path.name for path in here.iterdir()] == ["file"]


def test_evaluation_on_other_classes(
    checkpoint: Path, copy: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "annotations" / "val.json"
    data = json.loads(path.read_text())
    data["categories"] = [{"id": id_, "name": f"other {id_}"} for id_ in COLORS]
    path.write_text(json.dumps(data))
    options = ["--data.root", str(copy), "--out", "scores"]
    refused(capsys, ["evaluate", str(checkpoint), *options], str(path), "detector has 3 classes")
    assert list(here.iterdir()) == []


def test_evaluation_lands_in_the_run_folder(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(checkpoint), "--data.batch_size=2"]) == 0
    run = checkpoint.parent.parent
    out = capsys.readouterr().out
    for name in ("evaluation.json", "predictions.json"):
        assert json.loads((run / name).read_text())
    for name in ("evaluation.json", "predictions.json", "report.html"):
        assert str(run / name) in out
        (run / name).unlink()
    (run / "commands.jsonl").unlink()


def test_evaluation_reads_the_annotations_once(
    checkpoint: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def read(path: Path, polygons: bool = False) -> Any:
        opened.append(path)
        return read_json(path, polygons)

    monkeypatch.setattr(coco, "read_json", read)
    monkeypatch.setattr(metrics, "read_json", read)
    assert main(["evaluate", str(checkpoint), "--out", "scores"]) == 0
    assert (here / "scores" / "report.html").is_file()
    assert [path.name for path in opened] == ["val.json"]


def test_figures_that_cannot_be_written_are_shown(
    checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake must show before the evaluation, which may take hours."""
    (here / "scores" / "evaluation.json").mkdir(parents=True)
    assert main(["evaluate", str(checkpoint), "--out", "scores"]) == 2
    out, err = capsys.readouterr()
    assert "AP50" in out and "3 images" in out and "written" not in out
    assert "scores/evaluation.json: cannot be written" in err and err.count("\n") == 1


def test_a_published_detector_is_compared_with_its_figure_on_val2017_alone(
    checkpoint: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fsaf.checkpoints.any_format.fetch_published", lambda name: checkpoint)
    command = ["evaluate", "fsaf_r50_coco", "--device", "cpu", "--out", "scores"]
    assert main(command) == 0
    assert "published" not in capsys.readouterr().out
    monkeypatch.setattr("fsaf.checkpoints.published.is_val2017", lambda images, names: images == 3)
    assert main(command) == 0
    ap = json.loads((here / "scores" / "evaluation.json").read_text())["AP"]
    line = f"AP {ap:.3f}, published 0.374 (MMDetection 3.3.0, COCO val2017): {ap - 0.374:+.3f}, 95% interval"
    assert line in capsys.readouterr().out
