"""Every logger writes the log of a training with its real library, also if the run is resumed.

Tests of wandb, mlflow and trackio are skipped if the library is not installed.
"""

import csv
import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fsaf.errors import UserError
from fsaf.recipe import build_config
from fsaf.training import loggers
from fsaf.training.trainer import train
from synthetic import recipe


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(name) is None, reason=f"{name} is not installed: pip install 'fsaf[{name}]'"
    )


@pytest.fixture
def logged(root: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Train two steps and, resumed, two more, with a logger; return the run folder."""

    def training(to: str) -> Path:
        with (tmp_path / "said.txt").open("a+") as file:
            for steps in (2, 4):
                settings = {"model__backbone": "test_efficientnet", "model__convs": 0, "log__to": [to]}
                values = recipe(root, tmp_path / "mine", **settings, train__max_steps=steps, resume=steps > 2)
                train(build_config(values, where="here"), Console(file=file, width=400))
            file.seek(0)
            assert "warning" not in file.read()
        return tmp_path / "mine"

    return training


def losses(out: Path) -> list[float]:
    records = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if "loss" in record]


@pytest.mark.slow
def test_tensorboard(logged: Callable[[str], Path]) -> None:
    out = logged("tensorboard")
    board = EventAccumulator(str(out / "tensorboard")).Reload()
    assert [row.value for row in board.Scalars("train/loss")] == pytest.approx(losses(out))
    assert [row.step for row in board.Scalars("val/AP")] == [2, 4]
    assert [row.step for row in board.Scalars("AP/red")] == [2, 4]


@pytest.mark.slow
def test_csv(logged: Callable[[str], Path]) -> None:
    out = logged("csv")
    steps, evaluations = (
        list(csv.DictReader((out / f"{name}.csv").open())) for name in ("steps", "evaluations")
    )
    assert [float(row["loss"]) for row in steps] == losses(out)
    assert [row["step"] for row in evaluations] == ["2", "4"] and float(evaluations[1]["AP/red"]) >= 0
    assert not (out / "tensorboard").exists()


@needs("wandb")
@pytest.mark.slow
def test_wandb(logged: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline: both parts of the run have one id, and hold every loss."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = logged("wandb")
    files = sorted((out / "wandb").glob("offline-run-*/*.wandb"))
    id_ = (out / "wandb_run_id").read_text()
    assert [path.name for path in files] == [f"run-{id_}.wandb"] * 2
    content = b"".join(path.read_bytes() for path in files)
    for loss in losses(out):
        assert json.dumps(loss).encode() in content
    assert content.count(b"AP/red") >= 2


@needs("mlflow")
@pytest.mark.slow
def test_mlflow(logged: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.set_tracking_uri(None)
    out = logged("mlflow")
    (run,) = mlflow.search_runs(experiment_names=["fsaf"], output_format="list")
    assert run.info.run_name == "mine" and run.info.status == "FINISHED"
    assert run.data.params["optim.lr"] == "0.001"
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "train/loss")
    assert [each.value for each in sorted(history, key=lambda each: each.step)] == losses(out)
    assert "AP/red" in run.data.metrics


@needs("trackio")
@pytest.mark.slow
def test_trackio(logged: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("trackio")
    for name, module in list(sys.modules.items()):  # it reads the environment variable when it is imported
        if name.partition(".")[0] == "trackio" and hasattr(module, "TRACKIO_DIR"):
            monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio")
    out = logged("trackio")
    (found,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(found) as database:
        rows = [json.loads(row[0]) for row in database.execute("select metrics from metrics order by step")]
    assert [row["train/loss"] for row in rows if "train/loss" in row] == losses(out)


def test_a_package_that_is_missing_is_one_message(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written."""
    for name in ("wandb", "mlflow", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
        values = recipe(root, tmp_path / "out", log__to=[name])
        with pytest.raises(UserError) as error:
            train(build_config(values, where="here"))
        assert str(error.value) == f"log.to {name} needs the package {name}: pip install 'fsaf[{name}]'"
    assert not (tmp_path / "out").exists()


class NoLogin:
    """A wandb without a login, as of 0.31 where there is no terminal."""

    class errors:
        class UsageError(Exception):
            pass

    def login(self, **options: Any) -> bool:
        raise self.errors.UsageError("No API key configured. Use `wandb login` to log in.")


def test_a_login_that_is_missing_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", NoLogin())  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"log\.to wandb: there is no login; run `wandb login`"):
        loggers.check_loggers(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    loggers.check_loggers(["wandb"])


@needs("wandb")
@pytest.mark.slow
def test_the_real_wandb_without_a_login(tmp_path: Path) -> None:
    """In a process of its own, without a terminal to ask in: wandb remembers how it was first called."""
    code = "from fsaf.training.loggers import check_loggers; check_loggers(['wandb'])"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, **options)
    assert "RecipeError: log.to wandb: there is no login; run `wandb login`" in done.stderr
