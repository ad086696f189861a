"""Test ``fsaf train --dry-run``: it predicts what training does, refuses the same, and writes nothing."""

import io
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from fsaf.cli import main
from fsaf.config import Config, to_dict
from fsaf.data.samples import Images
from fsaf.data.workers import make_loader
from fsaf.errors import UserError
from fsaf.measuring import dry_run as module
from fsaf.measuring.batches import Batches, count_batches
from fsaf.measuring.dry_run import DryRun, Trial, dry_run
from fsaf.measuring.dry_run_text import format_dry_run
from fsaf.model.detector import FSAF
from fsaf.recipe import build_config
from fsaf.training.prepare import open_for_training
from fsaf.training.trainer import train
from synthetic import Picture, eight_pictures, recipe, write_coco

MIXED = [
    *eight_pictures(),
    *(Picture(height=96, width=64, objects=[(8, 8, 30, 30, 7), (20, 20, 20, 20, 3)]) for _ in range(3)),
]
"""Eight wide pictures and three tall ones."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_coco(tmp_path / "data", MIXED)
    write_coco(tmp_path / "data", eight_pictures(1)[:3], "val", first_id=501)
    return tmp_path / "data"


def values(data: Path, **overrides: Any) -> dict[str, Any]:
    shapes = {
        "data__shapes": [[64, 96], [96, 64]],
        "data__long_side": 96,
        "model__backbone": "test_efficientnet",
    }
    return recipe(data, data.parent / "out", **{**shapes, **overrides})


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_it_tells_what_training_does_and_writes_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values(data, data__max_boxes=1, train__epochs=3, train__evaluate_every=2)))
    before, folders = files(tmp_path), sorted(tmp_path.rglob("*"))
    assert main(["train", str(path), "--dry-run", "--optim.lr", "0.002"]) == 0
    out, err = capsys.readouterr()
    assert files(tmp_path) == before and sorted(tmp_path.rglob("*")) == folders
    assert "trying steps of 4 images of 64 x 96 on cpu" in err

    config = build_config(yaml.safe_load(path.read_text()), ["--optim.lr=0.002"], where="")
    config.model = FSAF(config.model, 3).settings  # with the mean and deviation of the backbone's weights
    shown = out.split("-- config --\n")[1].split("\n\n-- data --")[0]
    own = FSAF(config.model, 1).settings  # with the backbone's mean and deviation
    assert yaml.safe_load(shown) == to_dict(replace(config, model=own))
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for line in (
        "images 11 3",
        "images a step 4",
        "steps 3 an epoch, 0 to 9 in all",
        "64 x 96 2 an epoch",
        "96 x 64 1 an epoch",
        "padding 0.0% of the images' pixels",
        "blank rows 1 an epoch, to fill up each shape's last batch",
        "backbone test_efficientnet",
    ):
        assert line in lines, line
    boxes = sum(max(0, len(picture.objects) - 1) for picture in MIXED)
    assert f"boxes cut {boxes} an epoch beyond data.max_boxes = 1 of an image" in lines
    assert any(line.startswith("evaluation ") and line.endswith("2 of them") for line in lines)

    text = io.StringIO()
    train(config, Console(file=text, width=400))
    assert "11 images, 3 classes" in text.getvalue() and "3 steps an epoch of 4 images" in text.getvalue()
    records = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert max(record["step"] for record in records) == 9
    assert sum("AP" in record for record in records) == 2

    capsys.readouterr()
    written = files(tmp_path)
    for options, told in (([], "holds a run already"), (["--resume", "true"], None)):
        status = main(["train", str(path), "--dry-run", "--train.epochs", "4", *options])
        out, err = capsys.readouterr()
        assert (status, told is None or told in err) == ((2, True) if told else (0, True))
        assert files(tmp_path) == written
    assert "steps 3 an epoch, 9 to 12 in all" in [" ".join(line.split()) for line in out.splitlines()]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--data.root", "nowhere"], "nowhere"),
        (["--device", "abacus"], "'abacus'"),
        (["--resume", "true"], "last.pt: no such checkpoint"),
        (["--init", "none.pt"], "none.pt: no such checkpoint"),
        (["--out", "mine.yaml/run"], "is a file"),
        (["--devices", "0"], "--devices 0: must be at least 1"),
        (["--train.graphs", "true"], "does not support graphs"),
    ],
)
def test_it_refuses_what_training_refuses(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values(data)))
    assert main(["train", "mine.yaml", "--dry-run", *options]) == 2
    out, err = capsys.readouterr()
    assert told in err and err.splitlines()[-1].startswith("fsaf train: ") and out == ""
    assert not (tmp_path / "out").exists()


def test_a_picture_of_the_batch_that_does_not_decode(
    data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for path in (data / "images" / "train").iterdir():
        path.write_text("no image")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values(data)))
    assert main(["train", str(tmp_path / "mine.yaml"), "--dry-run"]) == 2
    assert "does not decode" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "change", "told"),
    [
        ("cuda:0", {}, "several processes need one device each; give cuda"),
        ("cuda", {}, r"this machine has 1 cuda devices, too few for 2 or more processes"),
        ("cpu", {"train__cuda_graphs": True}, r"train\.graphs = true: works in one process"),
    ],
)
def test_it_refuses_what_several_processes_refuse(
    data: Path, monkeypatch: pytest.MonkeyPatch, device: str, change: dict[str, Any], told: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    config = build_config(values(data, device=device, **change), where="the test's recipe")
    with pytest.raises(UserError, match=told):
        dry_run(config, devices=2)


def test_a_folder_that_cannot_be_written_and_torchrun(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values(data)))
    command = ["train", str(tmp_path / "mine.yaml"), "--dry-run"]
    with monkeypatch.context() as patch:  # root may write anywhere
        patch.setattr(os, "access", lambda path, mode: False)
        assert main(command) == 2
    assert f"no permission in {tmp_path}" in capsys.readouterr().err
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(command) == 2
    assert "leave torchrun out" in capsys.readouterr().err


@pytest.mark.parametrize("pad", [None, 32])
@pytest.mark.parametrize("world", [1, 2])
def test_batches_are_those_of_the_loader(data: Path, pad: int | None, world: int) -> None:
    config = build_config(values(data, data__pad=pad, data__batch_size=2), where="")
    records, _, _ = open_for_training(config)
    images = Images(records, config.data, augment=True)
    loader, sampler = make_loader(images, 2, workers=0, train=True, world=world)
    found = count_batches(images, sampler)
    sampler.set_epoch(0)
    real = list(loader)
    assert found.steps == Counter(tuple(batch.images.shape[2:]) for batch in real)
    assert tuple(real[found.largest].images.shape[2:]) == found.shape
    rows = [size for batch in real for size in batch.boxes.sizes.tolist() if size != [0, 0]]
    inside = sum(height * width for height, width in rows)
    padded = sum(batch.images[0, 0].numel() * len(batch.ids) for batch in real)
    assert found.padding == pytest.approx(padded / inside - 1)


def estimate(data: Path, **overrides: Any) -> DryRun:
    config = build_config(values(data, **overrides), where="")
    found = dry_run(config)
    trial = Trial(loss=1.0, first=5.0, step=[2.0], read=0.5, detect=1.0, memory_gb=1.0)
    return replace(found, trial=trial)


def test_the_estimate_by_hand(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.0)
    found = estimate(data, train__epochs=4, train__evaluate_every=2)
    assert found.batches.weight == 3  # both shapes have as many pixels
    assert found.epoch_seconds == 3 * 2.0 + 11 * 0.5  # reading in the same process comes on top
    assert found.evaluation_seconds == 3 * (1.0 + 0.5) and found.evaluations == 2
    assert found.seconds == 5.0 + 4 * 11.5 + 2 * 4.5
    found.run.config.data.workers = 1
    assert found.epoch_seconds == 6.0  # 5.5 s of it pass during a step
    found.trial.read = 1.0
    assert found.epoch_seconds == 11.0  # 11 s of loading hide the steps
    smaller = Batches(steps=Counter({(64, 96): 2, (32, 96): 3}), largest=0, padding=0.0, images=11)
    assert smaller.weight == 3.5
    found = replace(found, devices=2)
    assert found.epoch_seconds == 6.0 and "(2 processes of 4)" in format_dry_run(found)


@pytest.mark.parametrize(
    ("epochs", "every", "max_steps", "start"),
    [
        (3, 2, None, 0),
        (4, 2, None, 0),
        (4, 3, 7, 0),
        (4, 1, 7, 3),
        (4, 1, 6, 3),
        (4, 0, None, 0),
        (2, 1, None, 6),
    ],
)
def test_evaluations_are_counted_as_the_loop_makes_them(
    epochs: int, every: int, max_steps: int | None, start: int
) -> None:
    per_epoch, all_steps = 3, 3 * epochs
    end = min(all_steps, max_steps or all_steps)
    expected, step = 0, start
    while step < end:  # as in fsaf.training.trainer
        step = min((step // per_epoch + 1) * per_epoch, end)
        epoch = -(-step // per_epoch)
        expected += bool(every and ((step % per_epoch == 0 and epoch % every == 0) or step == end))
    config = Config()
    config.train.epochs, config.train.evaluate_every = epochs, every

    class Started:
        pass

    run: Any = Started()
    run.config = config
    anything: Any = object()
    batches = Batches(steps=Counter({(32, 32): per_epoch}), largest=0, padding=0.0, images=per_epoch)
    found = DryRun(
        run=run,
        records=anything,
        validation=anything,
        notes=[],
        devices=1,
        batches=batches,
        start=start,
        end=end,
        flops=(0, 0),
        trial=anything,
    )
    assert found.evaluations == expected
