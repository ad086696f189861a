"""Checkpoint files: whole or not at all, and read without running code."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fsaf.checkpoints.format import (
    checkpoint_classes,
    load_checkpoint,
    load_weights,
    make_checkpoint,
    save_checkpoint,
)
from fsaf.config import Config, DataConfig, to_dict
from fsaf.data.records import Classes
from fsaf.errors import UserError

CLASSES = Classes(names=("car", "cat"), ids=(3, 90))


def checkpoint(value: float = 1.0, **training: Any) -> dict[str, Any]:
    config = Config(data=DataConfig(shapes=[(64, 96)]))
    return make_checkpoint({"weight": torch.full((40,), value)}, CLASSES, config, training or None)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "last.pt"
    save_checkpoint(path, checkpoint(2.5, step=7, best=0.25))
    found = load_checkpoint(path)
    assert found["model"]["weight"].tolist() == [2.5] * 40
    assert checkpoint_classes(found) == CLASSES
    assert found["config"] == to_dict(Config(data=DataConfig(shapes=[(64, 96)])))
    assert found["training"] == {"step": 7, "best": 0.25}
    assert "training" not in checkpoint()
    assert [p.name for p in path.parent.iterdir()] == ["last.pt"]


class Interrupted(BaseException):
    """Stands for whatever ends a process in the middle of a write."""


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
    assert load_checkpoint(path)["model"]["weight"][0] == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_full_disk_is_the_users_to_solve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint(1.0))
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"last\.pt: cannot be written .*No space left on device"):
        save_checkpoint(path, checkpoint(2.0))
    assert load_checkpoint(path)["model"]["weight"][0] == 1.0


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
            assert load_checkpoint(path)["model"]["weight"].tolist() == [1.0] * 40
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
        {**checkpoint(), "model": [1]},
        {**checkpoint(), "classes": {"names": ["car"]}},
        {**checkpoint(), "config": None},
    ],
)
def test_other_contents_are_not_a_checkpoint(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt: not a checkpoint written by fsaf"):
        load_checkpoint(tmp_path / "other.pt")


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    torch.save({**checkpoint(), "version": 2}, tmp_path / "new.pt")
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
    writer({**checkpoint(), "model": Dangerous()}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match=r"bad\.pt"):
        load_checkpoint(tmp_path / "bad.pt")
    assert not (tmp_path / "owned").exists()


def test_weights_that_do_not_fit_are_named() -> None:
    model = torch.nn.Linear(4, 2)
    good = model.state_dict()
    load_weights(model, {"weight": torch.ones(2, 4), "bias": torch.zeros(2)}, "a.pt")
    assert model.weight.tolist() == [[1.0] * 4] * 2
    with pytest.raises(UserError, match=r"a\.pt: .*weight: \[3, 4\] in the file, \[2, 4\] in the model"):
        load_weights(model, {**good, "weight": torch.ones(3, 4)}, "a.pt")
    with pytest.raises(UserError, match=r"a\.pt: .*1 missing, 0 unknown \(bias\)"):
        load_weights(model, {"weight": good["weight"]}, "a.pt")
    with pytest.raises(UserError, match=r"a\.pt: .*0 missing, 1 unknown \(extra\)"):
        load_weights(model, {**good, "extra": torch.ones(1)}, "a.pt")
