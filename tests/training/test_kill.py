"""A run that is killed anywhere and resumed ends as an undisturbed one: weights, records, order of images."""

import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import kills
from fsaf.checkpoints.format import load_checkpoint
from fsaf.config import Config
from fsaf.recipe import build_config
from many_processes import FORK, equal
from synthetic import recipe, write_eight

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

if FORK is None:
    pytest.skip("FSAF_PROCESSES: no fork server on this system", allow_module_level=True)

KILLS = int(os.environ.get("FSAF_KILLS", "8"))
TIMES = {"images_per_second", "data_seconds", "step_seconds", "memory_gb"}
"""Times and memory in records, which differ from run to run."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eight")
    write_eight(folder, val=2)
    return folder


def settings(root: Path, out: Path, **overrides: Any) -> Config:
    """Return a config of two epochs of four steps, with checkpoints after 2, 6 and 8."""
    values = {
        "model__backbone": "test_efficientnet",
        "model__convs": 0,
        "data__batch_size": 2,
        "data__flip": 0.5,
        "train__ema": 0.9,
        "train__save_every": 2,
        "log__every": 3,
    }
    return build_config(recipe(root, out, **values, **overrides), where="the test's recipe")


def train(config: Config, folder: Path, **death: int) -> int | None:
    """Train in a process of its own; return its exit status."""
    process = FORK.Process(target=kills.train_until, args=(config, folder / "steps.txt"), kwargs=death)
    process.start()
    process.join(60)
    return process.exitcode


def end(folder: Path) -> dict[str, Any]:
    """Return all results of a run, without times."""
    out = folder / "run"
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    metrics = json.loads((out / "evaluation.json").read_text())
    checkpoints = {}
    for name in ("last", "best"):
        checkpoint = load_checkpoint(out / "checkpoints" / f"{name}.pt")
        checkpoints[name] = (checkpoint.weights, checkpoint.step, checkpoint.training, checkpoint.classes)
    steps = dict(line.split(" ", 1) for line in (folder / "steps.txt").read_text().splitlines())
    return {
        "checkpoints": checkpoints,
        "metrics.jsonl": [{key: row[key] for key in row.keys() - TIMES} for row in rows],
        "evaluation.json": {key: metrics[key] for key in metrics.keys() - TIMES},
        "predictions.json": (out / "predictions.json").read_text(),
        "pixels and rate of each step": steps,
        "files": sorted(path.name for path in out.rglob("*") if "tfevents" not in path.name),
    }


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[int]]:
    """Return the results of an undisturbed run, and its lines of Python and bytes of checkpoints."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(settings(root, folder / "run"), folder) == 0
    return end(folder), [int(n) for n in (folder / "steps.counts").read_text().split()]


def test_a_run_killed_anywhere_goes_on_to_the_same_end(
    root: Path, tmp_path: Path, whole: tuple[dict[str, Any], list[int]]
) -> None:
    """Half of the kills hit a random line of the training code, half a random byte of a checkpoint."""
    expected, (lines, written) = whole
    rows = expected["metrics.jsonl"]
    assert [(row["step"], "loss" in row) for row in rows] == [
        (3, True), (4, True), (4, False), (6, True), (8, True), (8, False),
    ]  # fmt: skip
    rng = random.Random(0)
    for number in range(KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        death = {"byte": rng.randint(1, written)} if number % 2 else {"line": rng.randint(1, lines)}
        config = settings(root, folder / "run")
        assert train(config, folder, **death) == -9, death
        resume = any((folder / "run" / "checkpoints").glob("*.pt"))
        assert train(replace(config, resume=resume), folder) == 0, death
        found = end(folder)
        for key, value in expected.items():
            assert equal(found[key], value), (death, key)
