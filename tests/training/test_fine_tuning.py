"""Test fine-tuning from the published detector of COCO; a file on this machine stands in for it."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import fsaf
from checkpoints.servers import Manners, serve
from fsaf.checkpoints import published
from fsaf.checkpoints.any_format import write_checkpoint
from fsaf.checkpoints.format import Checkpoint, load_checkpoint
from fsaf.data.records import Classes
from fsaf.model.detector import FSAF
from fsaf.recipe import load_recipe
from synthetic import write_eight

pytestmark = pytest.mark.slow

THIN = {"model__channels": 32, "model__convs": 1}


def test_own_data_start_from_the_detector_of_coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = load_recipe("fsaf_r50_own", ["--model.channels=32", "--model.convs=1"])
    classes = Classes(names=("person", "red", "dog"), ids=(1, 2, 3))
    weights = FSAF(config.model, len(classes)).state_dict()
    file = tmp_path / "coco.pth"
    write_checkpoint(file, Checkpoint(config=config, classes=classes, weights=weights), "mmdetection")
    manners = Manners(file.read_bytes())
    known = replace(
        published.PUBLISHED["fsaf_r50_coco"], sha256=hashlib.sha256(manners.content).hexdigest()[:8]
    )
    monkeypatch.setitem(published.PUBLISHED, "fsaf_r50_coco", known)
    monkeypatch.setenv("FSAF_HOME", str(tmp_path / "home"))
    write_eight(tmp_path / "data")
    text = io.StringIO()
    with serve(manners) as address:
        monkeypatch.setattr(published, "SERVER", address)
        run = fsaf.train(
            "fsaf_r50_own",
            data=tmp_path / "data",
            out=tmp_path / "run",
            console=Console(file=text, width=400),
            device="cpu",
            data__workers=0,
            data__short_side=64,
            train__max_steps=1,
            train__evaluate_every=0,
            **THIN,
        )
    said, count = text.getvalue(), len(weights)
    assert (
        f"from fsaf_r50_coco: {count - 2} of {count} weights; class rows kept: red; new: green, blue" in said
    )
    assert "chosen for images with a short side of 64 (median): data.long_side 107" in said
    assert len(manners.requests) == 1

    trained = load_checkpoint(run / "checkpoints" / "last.pt").weights
    same = {name for name, value in weights.items() if torch.equal(value, trained[name])}
    kept = "head.classes.weight"
    assert torch.allclose(trained[kept][1], weights[kept][1], atol=1e-3)  # red, after one step
    frozen = {
        n
        for n in weights
        if n.startswith(tuple(f"backbone.body.{part}" for part in ("conv1", "bn1", "layer1")))
    }
    statistics = {name for name in weights if "running" in name}
    assert frozen and statistics and frozen | statistics <= same
    assert any(name.startswith("backbone.body.layer4") for name in set(weights) - same)
