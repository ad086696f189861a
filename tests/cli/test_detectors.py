"""Which checkpoint a command takes: a file, a run folder, the newest run."""

import os
from pathlib import Path

import pytest

from cli.commands import refused
from fsaf.cli import main
from fsaf.cli.detectors import choose, looks_like_pictures
from fsaf.errors import UserError


def make_run(name: str, *files: str, age: int = 0) -> Path:
    folder = Path("runs") / name / "checkpoints"
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_bytes(b"checkpoint")
        seconds = 2_000_000_000 - age
        os.utime(folder / file, (seconds, seconds))
    return folder.parent


def test_a_run_folder_is_its_best_checkpoint_else_its_last(here: Path) -> None:
    assert choose(str(make_run("a", "best.pt", "last.pt"))) == "runs/a/checkpoints/best.pt"
    assert choose(str(make_run("b", "last.pt"))) == "runs/b/checkpoints/last.pt"


def test_a_run_without_a_checkpoint_is_refused(here: Path) -> None:
    with pytest.raises(UserError, match="runs/a: the run has no checkpoint yet"):
        choose(str(make_run("a")))


def test_nothing_is_the_newest_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("old", "best.pt", "last.pt", age=50)
    make_run("new", "last.pt", age=10)
    assert choose(None) == "runs/new/checkpoints/last.pt"
    assert "runs/new/checkpoints/last.pt" in capsys.readouterr().err


def test_nothing_at_all_is_one_message(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, ["evaluate"], "no CHECKPOINT given", "fsaf models")


@pytest.mark.parametrize("word", ["a.jpg", "A.TIFF", "clip.mp4", "photos", "x/*", "camera:0"])
def test_pictures_are_told_from_checkpoints(word: str, here: Path) -> None:
    Path("photos").mkdir()
    assert looks_like_pictures(word)


@pytest.mark.parametrize(
    "word", ["a.pt", "a.pth", "a.onnx", "a.om", "hf:a/b", "fsaf_r50_coco", "best", "runs/a"]
)
def test_checkpoints_are_told_from_pictures(word: str, here: Path) -> None:
    make_run("a", "best.pt")
    assert not looks_like_pictures(word)


def test_predict_without_pictures_is_one_message(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, ["predict", "a.pt"], "a.pt: give images")


def test_predict_takes_pictures_alone(
    checkpoint: Path, root: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (make_run("mine") / "checkpoints" / "best.pt").write_bytes(checkpoint.read_bytes())
    pictures = [str(path) for path in sorted((root / "images" / "val").iterdir())]
    assert main(["predict", *pictures[:2], "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 2 and "runs/mine/checkpoints/best.pt" in err


def test_evaluate_takes_a_run_folder(
    checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(checkpoint.parents[1]), "--out", "scores"]) == 0
    assert Path("scores/evaluation.json").is_file()
