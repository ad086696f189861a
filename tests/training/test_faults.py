"""Test damaged checkpoints, a full disk and a loader process that dies: one message, nothing is lost."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

import kills
from checkpoints.test_format import checkpoint
from fsaf.checkpoints.format import checkpoints_at, load_checkpoint, load_newest, save_checkpoint
from fsaf.config import Config, to_dict
from fsaf.errors import UserError
from fsaf.files import whole
from fsaf.recipe import build_config
from fsaf.training import run, start, trainer
from many_processes import FORK, equal
from synthetic import recipe

pytestmark = pytest.mark.slow


def config(root: Path, out: Path, **overrides: Any) -> Config:
    """Return a config of one epoch of four steps, with a checkpoint after each."""
    settings = {"model__backbone": "test_efficientnet", "data__batch_size": 2, "train__epochs": 1}
    settings |= {"train__save_every": 1, "train__evaluate_every": 0}
    return build_config(recipe(root, out, **{**settings, **overrides}), where="the test's recipe")


def train(root: Path, out: Path, **overrides: Any) -> str:
    with (out.parent / "said.txt").open("w") as file:
        trainer.train(config(root, out, **overrides), Console(file=file, width=400))
    return (out.parent / "said.txt").read_text()


def in_process(function: Callable[..., None], folder: Path, *arguments: Any) -> str:
    """Run ``function`` in a process of its own; return the message of the error that ends it."""
    if FORK is None:
        pytest.skip("FSAF_PROCESSES: no fork server on this system")
    said = folder / "mistake.txt"
    process = FORK.Process(target=function, args=(arguments[0], said, *arguments[1:]))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    return said.read_text()


# -- checkpoints ------------------------------------------------------------------------------------------


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    for value in range(5):
        save_checkpoint(path, checkpoint(float(value)), keep=3)
        found = [float(load_checkpoint(file).weights["weight"][0]) for file in checkpoints_at(path)]
        assert found == [float(v) for v in range(value, max(value - 3, -1), -1)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last-1.pt", "last-2.pt", "last.pt"]


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.pt"
    for value in (1.0, 2.0):
        save_checkpoint(path, checkpoint(value), keep=2)
    harm(path, damage)
    found, file, faults = load_newest(path)
    assert file.name == "last-1.pt" and found.weights["weight"].tolist() == [1.0] * 40
    assert [fault.split(":")[0] for fault in faults] == ([] if damage == "gone" else [str(path)])
    harm(file, damage)
    with pytest.raises(UserError, match=r"last\.pt"):
        load_newest(path)


def harm(path: Path, damage: str) -> None:
    data = bytearray(path.read_bytes())
    weights = (
        data.index(torch.full((40,), 1.0 if "-1" in path.name else 2.0).numpy().tobytes())
        if damage == "bit"
        else 0
    )
    data[weights] ^= 1
    path.unlink()
    if damage != "gone":
        path.write_bytes({"cut": data[: len(data) // 2], "bit": data, "empty": b""}[damage])


def test_pytorch_itself_takes_a_flipped_bit(tmp_path: Path) -> None:
    """This is why ``load_checkpoint`` compares checksums."""
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint(2.0))
    harm(path, "bit")
    assert torch.load(path, weights_only=True)["model"]["weight"].tolist() != [2.0] * 40
    with pytest.raises(UserError, match=r"last\.pt: not a readable checkpoint.*checksum"):
        load_checkpoint(path)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(root: Path, tmp_path: Path) -> None:
    train(root, tmp_path / "whole")
    train(root, tmp_path / "a", train__max_steps=3)
    last = tmp_path / "a" / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:-100])
    said = train(root, tmp_path / "a", resume=True, train__max_steps=3)
    (warning,) = [line for line in said.splitlines() if line.startswith("warning")]
    assert str(last) in warning and str(last.with_name("last-1.pt")) in warning
    assert load_checkpoint(last).step == 3
    # The damaged file has not replaced the good one.
    assert load_checkpoint(last.with_name("last-1.pt")).step in (2, 3)
    train(root, tmp_path / "a", resume=True)
    models = [load_checkpoint(tmp_path / n / "checkpoints" / "last.pt").weights for n in ("whole", "a")]
    assert equal(*models)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / n / "metrics.jsonl").read_text().splitlines()]
        for n in ("whole", "a")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 4


def test_a_run_without_last_pt_is_a_run_all_the_same(root: Path, tmp_path: Path) -> None:
    """A power failure may destroy ``last.pt`` and leave ``last-1.pt``."""
    train(root, tmp_path / "a", train__max_steps=2)
    (tmp_path / "a" / "checkpoints" / "last.pt").unlink()
    with pytest.raises(UserError, match="holds a run already"):
        train(root, tmp_path / "a")
    assert "last-1.pt" in train(root, tmp_path / "a", resume=True)


# -- the disk ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "file"), [(3_000_000, "checkpoints/last.pt"), (2_500, "metrics.jsonl"), (100, "config.yaml")]
)
def test_a_full_disk_is_told_and_keeps_what_there_is(
    root: Path, tmp_path: Path, limit: int, file: str
) -> None:
    """The limit applies to each file: checkpoints have 4 MB, the records of an epoch 3.6 kB."""
    out = tmp_path / "run"
    train(root, out, train__max_steps=2, data__batch_size=1)
    last = out / "checkpoints" / "last.pt"
    assert last.stat().st_size > 3_000_000
    before = {name: (out / name).read_bytes() for name in ("checkpoints/last.pt", "config.yaml")}
    settings = {
        "resume": True,
        "data__batch_size": 1,
        "train__save_every": 0 if file == "metrics.jsonl" else 1,
    }
    message = in_process(kills.train_limited, tmp_path, config(root, out, **settings), limit)
    assert message.startswith(str(out if file == "config.yaml" else out / file))
    assert "cannot" in message and "File too large" in message and "free some space" in message
    assert last.read_bytes() == before["checkpoints/last.pt"]
    assert file != "config.yaml" or (out / "config.yaml").read_bytes() == before["config.yaml"]
    assert not list(out.rglob("*.tmp"))
    train(root, out, **settings)
    assert load_checkpoint(last).step == 8
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 9))


def leftover(path: Path) -> Path:
    """Write the draft that a process leaves if it is killed while it writes ``path``; return its path."""
    with contextlib.suppress(ZeroDivisionError), whole(path) as draft:
        dead = draft.with_name(draft.name.replace(f".{os.getpid()}.", f".{dead_process()}."))
        dead.write_bytes(b"half")
        raise ZeroDivisionError
    return dead


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def test_what_a_killed_process_left_half_written_is_cleared_away(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(root, out, train__max_steps=1)
    left = [leftover(out / "evaluation.json"), leftover(out / "checkpoints" / "last.pt")]
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    train(root, out, resume=True, train__max_steps=2)
    assert not any(path.exists() for path in left)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]


# -- loader processes ---------------------------------------------------------------------------------------


def test_a_loader_process_that_dies_is_told_with_its_image(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(root, out, train__max_steps=1)
    settings = config(root, out, resume=True, data__workers=2, data__shuffle=False)
    message = in_process(kills.train_losing_a_worker, tmp_path, settings, "0017.png")
    picture = root / "images" / "train" / "0017.png"
    assert message.startswith(f"a loader process ended with SIGKILL while reading {picture} (out of memory?")
    assert f"the last good checkpoint is {out / 'checkpoints' / 'last.pt'}" in message
    train(root, out, resume=True)
    assert load_checkpoint(out / "checkpoints" / "last.pt").step == 4


SCRIPT = """
import multiprocessing, sys
import fsaf
from fsaf.recipe import load_recipe

multiprocessing.set_start_method(sys.argv[1], force=True)
fsaf.train(load_recipe(sys.argv[2]))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_without_a_main_guard_gets_that_advice(root: Path, tmp_path: Path, method: str) -> None:
    """Processes that import the script must not train, nor write into the run folder."""
    settings = config(root, tmp_path / "run", data__workers=1)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(to_dict(settings)))
    (tmp_path / "mine.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "mine.py", method, "mine.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and "if __name__ == '__main__':" in done.stderr.splitlines()[-1]
    assert "bootstrapping phase" not in done.stderr and "out of memory" not in done.stderr
    assert len((tmp_path / "run" / "commands.jsonl").read_text().splitlines()) == 1


# -- when checkpoints are written --------------------------------------------------------------------------


def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the steps of all checkpoints that are written from now on."""
    steps: list[int] = []
    save = run.save_checkpoint

    def noting(path: Path, content: Any, *rest: Any) -> None:
        if path.name == "last.pt":
            steps.append(content.step)
        save(path, content, *rest)

    monkeypatch.setattr(run, "save_checkpoint", noting)
    return steps


def test_short_epochs_write_no_checkpoint_each(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty epochs of one step, each evaluated, take seconds: one checkpoint, at the end."""
    steps = writes(monkeypatch)
    settings = {"data__batch_size": 8, "train__epochs": 20, "train__save_every": 0}
    train(root, tmp_path / "a", **settings, train__evaluate_every=1)
    assert steps == [20]


def test_a_checkpoint_is_never_older_than_asked_for(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes longer than the thousandth of a second after which a checkpoint is due."""
    steps = writes(monkeypatch)
    train(root, tmp_path / "a", train__save_every=0, train__save_minutes=1e-5)
    assert steps == [1, 2, 3, 4]
    steps.clear()
    train(root, tmp_path / "b", train__save_every=3)
    assert steps == [3, 4]


# -- random numbers -----------------------------------------------------------------------------------------


def test_dropout_and_the_loss_scale_go_on_where_they_were(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train in fp16 with a dynamic scale that has changed, dropout, and a checkpoint between two records."""
    monkeypatch.setattr(start, "FSAF", kills.Dropping)
    settings = {"train__precision": "fp16", "log__every": 4, "train__save_every": 3}
    train(root, tmp_path / "whole", **settings)
    train(root, tmp_path / "a", **settings)
    kept = tmp_path / "a" / "checkpoints" / "last-1.pt"
    assert load_checkpoint(kept).step == 3
    shutil.move(kept, kept.with_name("last.pt"))
    torch.manual_seed(99)
    train(root, tmp_path / "a", **settings, resume=True)
    ends = []
    for name in ("whole", "a"):
        last = load_checkpoint(tmp_path / name / "checkpoints" / "last.pt")
        (row,) = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        ends.append(
            (last.weights, last.training, {key: row[key] for key in ("loss", "grad_norm", "level_share")})
        )
    assert equal(*ends)
    # Without the saved state the run ends elsewhere, because of dropout.
    shutil.move(tmp_path / "a" / "checkpoints" / "last-1.pt", kept.with_name("last.pt"))
    assert load_checkpoint(kept.with_name("last.pt")).step == 3
    monkeypatch.setattr(run, "set_random_state", lambda *_: None)
    train(root, tmp_path / "a", **settings, resume=True)
    other = load_checkpoint(tmp_path / "a" / "checkpoints" / "last.pt").weights
    assert not equal(other, ends[0][0])
