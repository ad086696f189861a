"""A training beside published figures: the differences, and what makes the figures not comparable."""

import json
from pathlib import Path

import pytest

from fsaf.checkpoints.coco_classes import COCO
from fsaf.checkpoints.published import Figure, figures_of, is_val2017
from fsaf.cli import main
from fsaf.reporting.reproduction import changes, compare
from synthetic import write_eight

RECIPE = "fsaf_r50_fpn_1x_coco"
TINY = [
    "--model.backbone=test_efficientnet",
    "--model.weights=none",
    "--data.short_side=64",
    "--data.long_side=96",
    "--data.shapes=[[64,96]]",
    "--data.workers=0",
    "--device=cpu",
    "--train.max_steps=2",
    "--train.epochs=1",
]


def test_figures_are_those_of_the_sources() -> None:
    names = ("fsaf_r50_fpn_1x_coco", "fsaf_r101_fpn_1x_coco", "fsaf_x101_64x4d_fpn_1x_coco")
    published = [
        [round(100 * one.ap, 1) for one in figures_of(name)]
        for name in (*names, "fsaf_r50_fpn_1x_coco_paper", "lite0")
    ]
    assert published == [[37.4], [39.3], [42.4], [36.0, 35.9], []]


def test_the_difference_and_its_interval() -> None:
    evaluation = {"AP": 0.3712, "intervals": {"AP": [0.365, 0.378]}}
    (row,) = compare([Figure(ap=0.374, source="them")], evaluation)
    assert row.line == "AP 0.371, published 0.374 (them): -0.003, 95% interval -0.009 to +0.004"
    (row,) = compare([Figure(ap=0.374, source="them")], {"AP": None})
    assert (row.reached, row.difference, row.interval) == ("-", "-", "")


def test_coco_is_known_by_its_images_and_classes() -> None:
    assert is_val2017(5000, COCO.names)
    assert not is_val2017(4999, COCO.names)
    assert not is_val2017(5000, COCO.names[:-1])


def test_settings_that_change_the_training_are_listed() -> None:
    settings = {
        "train": {"epochs": 1},
        "data": {"root": "here", "workers": 0, "batch_size": 2},
        "out": "there",
    }
    assert changes(RECIPE, settings) == ["train.epochs 1 (recipe: 12)"]


@pytest.mark.slow
def test_a_rehearsal_says_that_it_is_no_reproduction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_eight(tmp_path)
    for part in ("train", "val"):
        split = tmp_path / "annotations" / f"{part}.json"
        split.rename(tmp_path / "annotations" / f"instances_{part}2017.json")
    files = [f"--data.{part}.images=images/{part}" for part in ("train", "val")]
    out = tmp_path / "run"
    command = ["reproduce", RECIPE, f"--data.root={tmp_path}", *files, *TINY, f"--out={out}"]
    for _ in range(2):  # the second time nothing is left to train
        assert main(command) == 0
        shown = capsys.readouterr().out
        assert "The data are not COCO val2017, but 3 images with 3 classes" in shown
        assert "train.epochs 1 (recipe: 12)" in shown and "published 0.374 (MMDetection 3.3.0" in shown
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["step"] == 2
    page = (out / "reproduction.html").read_text()
    assert "The data are not COCO val2017" in page and "fsaf reproduce" in page and "torch" in page


def test_what_has_no_figure_cannot_be_reproduced(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "lite0", "--data.root=x"]) == 2
    assert "lite0: no figure was published for this recipe" in capsys.readouterr().err
    assert main(["reproduce", RECIPE, "--data.root=x", "--train.evaluate_every=0"]) == 2
    assert "train.evaluate_every = 0" in capsys.readouterr().err
