"""The validation loss is the objective of all validation images as one batch."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import fsaf
from fsaf.data.readers.splits import open_split
from fsaf.data.samples import Images
from fsaf.data.workers import make_loader
from fsaf.objective.objective import objective
from fsaf.reporting.report import write_report
from training.test_best import train


def one_batch(detector: fsaf.Detector) -> float:
    """Return the objective of all validation images in one batch."""
    records = open_split(detector.config.data, "val", detector.classes)
    loader, _ = make_loader(
        Images(records, detector.config.data, augment=False), len(records.images), workers=0, train=False
    )
    (batch,) = loader
    with torch.no_grad():
        outputs = detector.model(batch.images, batch.boxes.sizes)
    return objective(outputs, batch.boxes, detector.config.objective).loss.item()


@pytest.mark.slow
@pytest.mark.parametrize("branches", [["anchor_free"], ["anchor_based"], ["anchor_free", "anchor_based"]])
def test_it_is_the_objective_of_all_validation_images(
    root: Path, tmp_path: Path, branches: list[str]
) -> None:
    """Here of three images in batches of two, with half precision in training alone."""
    out = tmp_path / "out"
    settings: dict[str, Any] = {"model__branches": branches, "data__batch_size": 2, "train__ema": 0.9}
    lines = train(root, out, **settings, train__precision="bf16", train__epochs=1)
    detector = fsaf.load(out / "checkpoints" / "best.pt", "cpu")
    expected = one_batch(detector)
    evaluation = json.loads((out / "evaluation.json").read_text())
    record = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert evaluation["val_loss"] == record["val_loss"] == pytest.approx(expected, rel=1e-5)
    (line,) = [line for line in lines if line.startswith("epoch 1: AP")]
    assert line.endswith(f"validation loss {expected:.4f}")


@pytest.mark.slow
def test_the_last_evaluation_shows_every_class(root: Path, tmp_path: Path) -> None:
    """And the report draws the loss of each evaluation, if there are two."""
    out = tmp_path / "out"
    lines = train(root, out, train__epochs=2)
    at = next(i for i, line in enumerate(lines) if line.split() == ["class", "AP", "AP50", "boxes"])
    assert {line.split()[0] for line in lines[at + 1 : at + 4]} == {"red", "green", "blue"}
    assert lines[at + 4].startswith("trained; everything is in")
    assert ">validation <" in write_report(out).read_text()


@pytest.mark.slow
def test_detections_on_several_views_have_none(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lines = train(root, out, train__max_steps=1, predict__flip=True)
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["val_loss"] is None
    assert not [line for line in lines if "validation loss" in line]
