"""Ctrl-C and SIGTERM save everything and print how to resume; the resumed run ends the same."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import kills
from fsaf.checkpoints.format import load_checkpoint
from fsaf.errors import Stopped
from fsaf.processes.launch import launch
from fsaf.recipe import build_config
from many_processes import FORK, equal
from synthetic import recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

if FORK is None:
    pytest.skip("FSAF_PROCESSES: no fork server on this system", allow_module_level=True)


def values(root: Path, out: Path, **overrides: Any) -> dict[str, Any]:
    """Return a recipe: one epoch of four steps, records after steps 3 and 4."""
    settings = {
        "model__backbone": "test_efficientnet",
        "data__batch_size": 2,
        "train__epochs": 1,
        "log__every": 3,
    }
    return recipe(root, out, **{**settings, **overrides})


def fsaf(
    folder: Path, recipe: dict[str, Any], *options: str, send: str = "none", **how: Any
) -> tuple[int, str]:
    """Run ``fsaf train`` in its own process by ``kills.command``; return its status and output."""
    file, said = folder / "recipe.json", folder / "said.txt"
    file.write_text(json.dumps(recipe))
    said.write_text("")
    arguments = ["train", str(file), *options]
    process = FORK.Process(
        target=kills.command, args=(said, arguments, send, how.pop("number", 0)), kwargs=how
    )
    process.start()
    process.join(60)
    return process.exitcode, said.read_text()


def end(out: Path) -> Any:
    """Return weights, training state and records of a run, without times."""
    last = load_checkpoint(out / "checkpoints" / "last.pt")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    records = [(row["step"], row.get("loss"), row.get("level_share"), row.get("AP")) for row in rows]
    return last.weights, last.training, records


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("whole")
    status, said = fsaf(folder, values(root, folder / "run"))
    assert status == 0, said
    assert [row[0] for row in end(folder / "run")[2]] == [3, 4, 4]
    return end(folder / "run")


@pytest.mark.parametrize(
    ("number", "step", "send", "workers"),
    [
        (signal.SIGTERM, 2, "process", 0),
        (signal.SIGINT, 1, "group", 1),
        (signal.SIGTERM, 3, "group", 1),
        (signal.SIGTERM, 4, "process", 0),
        (signal.SIGINT, 0, "process", 0),
    ],
    ids=["step", "terminal", "slurm", "last step of the epoch", "evaluation"],
)
def test_a_signal_saves_and_the_run_goes_on_to_the_same_end(
    root: Path, tmp_path: Path, whole: Any, number: int, step: int, send: str, workers: int
) -> None:
    out = tmp_path / "run"
    recipe = values(root, out, data__workers=workers)
    status, said = fsaf(tmp_path, recipe, send=send, number=number, step=step)
    assert status == 128 + number, said
    name = signal.Signals(number).name
    lines = said.splitlines()
    assert lines[-1] == (
        f"fsaf train: stopped by {name} after step {step or 4}; the last good checkpoint is "
        f"{out / 'checkpoints' / 'last.pt'}; resume with: fsaf train --resume {out}"
    )
    assert "Traceback" not in said and said.count(f"{name}: stopping after this step") == 1
    last = load_checkpoint(out / "checkpoints" / "last.pt")
    assert last.step == (step or 4) and last.training.to_evaluate is (step in (0, 4))
    status, said = fsaf(tmp_path, recipe, "--resume", "true")
    assert status == 0, said
    assert equal(end(out), whole)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(root: Path, tmp_path: Path, number: int, status: int) -> None:
    """The status of a process that SIGTERM ends is 143 in a shell."""
    started = time.monotonic()
    how = {"send": "process", "number": number, "step": 2, "again": True}
    found, said = fsaf(tmp_path, values(root, tmp_path / "run"), **how)
    assert found == status and time.monotonic() - started < 30
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("to", ["launcher", "one of them"])
def test_several_processes_stop_after_the_same_step(root: Path, tmp_path: Path, to: str) -> None:
    ends = []
    for name, step in (("whole", 0), ("stopped", 2)):
        out = tmp_path / name
        settings = {"data__batch_size": 1, "train__evaluate_every": 0}
        pid = os.getpid() if to == "launcher" else 0
        for resume in (False, True) if step else (False,):
            config = build_config(values(root, out, **settings, resume=resume), where="the test's recipe")
            arguments = [config, pid, signal.SIGTERM, 1, 0 if resume else step]
            if step and not resume:
                with pytest.raises(Stopped, match=r"stopped by SIGTERM after step .*--resume ") as error:
                    launch(kills.train_signalled, arguments, 2, 3, start_method="forkserver")
                assert error.value.signal == signal.SIGTERM
                assert load_checkpoint(out / "checkpoints" / "last.pt").step in (2, 3)
            else:
                launch(kills.train_signalled, arguments, 2, start_method="forkserver")
        ends.append(end(out))
    assert equal(ends[0], ends[1])
