"""Checkpoint files: whole or not at all, and read without running code."""

import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fsaf.checkpoints import format
from fsaf.checkpoints.any_format import read_checkpoint
from fsaf.checkpoints.format import (
    Checkpoint,
    Training,
    load_checkpoint,
    save_checkpoint,
    to_content,
)
from fsaf.config import Config, DataConfig, ModelConfig
from fsaf.data.records import Classes
from fsaf.errors import UserError
from fsaf.model.detector import FSAF

CLASSES = Classes(names=("car", "cat"), ids=(3, 90))


def checkpoint(value: float = 1.0, step: int | None = None, training: Training | None = None) -> Checkpoint:
    config = Config(data=DataConfig(shapes=[(64, 96)]))
    weights = {"weight": torch.full((40,), value)}
    return Checkpoint(config=config, classes=CLASSES, weights=weights, step=step, training=training)


TRAINING = Training(
    best=0.25,
    best_epoch=3,
    to_evaluate=True,
    optimizer={"param_groups": [{"lr": 0.5}]},
    scaler={},
    processes=[{"random": {}, "window": {}}],
)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "last.pt"
    save_checkpoint(path, checkpoint(2.5, step=7, training=TRAINING))
    found = load_checkpoint(path)
    assert found.weights["weight"].tolist() == [2.5] * 40
    assert found.classes == CLASSES and found.config == Config(data=DataConfig(shapes=[(64, 96)]))
    assert found.step == 7 and found.training == TRAINING
    assert [p.name for p in path.parent.iterdir()] == ["last.pt"]


def test_a_network_alone_keeps_its_step(tmp_path: Path) -> None:
    for step in (None, 7):
        save_checkpoint(tmp_path / "best.pt", checkpoint(step=step))
        found = load_checkpoint(tmp_path / "best.pt")
        assert found.step == step and found.training is None


def test_a_file_of_version_0_1_is_read(tmp_path: Path) -> None:
    """Its training has no evaluation that is due, no processes and no launch."""
    content = {
        "format": "fsaf",
        "version": 1,
        "config": {"optim": {"lr": 0.125}},
        "classes": {"names": ["car", "cat"], "ids": [3, 90]},
        "model": {"weight": torch.ones(2)},
        "training": {
            "step": 7,
            "best": 0.25,
            "best_epoch": 3,
            "optimizer": {"state": {}},
            "scaler": {"scale": 2.0},
            "model": {"weight": torch.zeros(2)},
            "average_updates": 7,
        },
    }
    torch.save(content, tmp_path / "last.pt")
    found = load_checkpoint(tmp_path / "last.pt")
    assert found.config.optim.lr == 0.125 and found.classes == CLASSES and found.step == 7
    assert found.training is not None and found.training.model is not None
    assert found.training.best == 0.25 and found.training.average_updates == 7
    assert not found.training.to_evaluate and found.training.processes == [] and found.launch == ""
    assert found.training.model["weight"].tolist() == [0, 0]


def test_a_file_is_read_and_checked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_config: ModelConfig
) -> None:
    calls: list[str] = []

    def counted(name: str, function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            calls.append(name)
            return function(*args, **options)

        return call

    network, weights = Config(model=tiny_model_config), FSAF(tiny_model_config, 2).state_dict()
    save_checkpoint(tmp_path / "best.pt", replace(checkpoint(), config=network, weights=weights))
    monkeypatch.setattr(torch, "load", counted("load", torch.load))
    monkeypatch.setattr(zipfile.ZipFile, "testzip", counted("check", zipfile.ZipFile.testzip))
    monkeypatch.setattr(format, "build_config", counted("parse", format.build_config))
    assert read_checkpoint(tmp_path / "best.pt").weights.keys() == weights.keys()
    assert calls == ["check", "load", "parse"]


class Interrupted(BaseException):
    """Stand-in for anything that ends a process in the middle of a write."""


@pytest.mark.parametrize("stage", ["write", "sync", "rename"])
def test_a_crash_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint(1.0))
    before = path.read_bytes()

    def half(content: Any, file: Any) -> None:
        file.write(b"PK half a checkpoint")
        raise Interrupted

    def stop(*_: Any) -> None:
        raise Interrupted

    if stage == "write":
        monkeypatch.setattr(torch, "save", half)
    else:
        monkeypatch.setattr(*{"sync": (os, "fsync"), "rename": (Path, "replace")}[stage], stop)
    with pytest.raises(Interrupted):
        save_checkpoint(path, checkpoint(2.0))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert load_checkpoint(path).weights["weight"][0] == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_full_disk_is_the_users_to_solve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint(1.0))
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"last\.pt: cannot be written .*No space left on device"):
        save_checkpoint(path, checkpoint(2.0))
    assert load_checkpoint(path).weights["weight"][0] == 1.0


def test_a_folder_that_cannot_be_made_is_the_users_to_solve(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"last\.pt: cannot be written"):
        save_checkpoint(tmp_path / "file" / "last.pt", checkpoint())


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(UserError, match=f"{path}: no such checkpoint"):
            load_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_loads_whole_or_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint(step=1))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for i in range(600):
        data = bytearray(whole)
        if i % 2:
            del data[rng.integers(0, len(data)) :]
        else:
            for _ in range(rng.integers(1, 6)):
                data[rng.integers(0, len(data))] = rng.integers(0, 256)
        path.write_bytes(bytes(data))
        try:
            assert load_checkpoint(path).weights["weight"].tolist() == [1.0] * 40
        except UserError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
    assert refused > 300


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        torch.ones(3),
        {"state_dict": {}},
        {"format": "other", "version": 1},
        {"format": "fsaf"},
        {"format": "fsaf", "version": "1"},
        {"format": "fsaf", "version": 1},
        {**to_content(checkpoint()), "config": None},
    ],
)
def test_other_contents_are_not_a_checkpoint(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt: not a checkpoint written by fsaf"):
        load_checkpoint(tmp_path / "other.pt")


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    torch.save({**to_content(checkpoint()), "version": 2}, tmp_path / "new.pt")
    with pytest.raises(UserError, match=r"new\.pt: written by a newer fsaf \(format 2\); upgrade"):
        load_checkpoint(tmp_path / "new.pt")


class Dangerous:
    def __reduce__(self) -> Any:
        return os.mkdir, ("owned",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "writer", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))]
)
def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: Any) -> None:
    monkeypatch.chdir(tmp_path)
    writer({**to_content(checkpoint()), "model": Dangerous()}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match=r"bad\.pt"):
        load_checkpoint(tmp_path / "bad.pt")
    assert not (tmp_path / "owned").exists()
