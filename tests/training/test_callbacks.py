"""Callbacks of a training, and those that pass its log on."""

from pathlib import Path
from typing import Any

import pytest

import fsaf
from fsaf.checkpoints.format import load_checkpoint
from fsaf.errors import UserError
from fsaf.recipe import build_config
from fsaf.training.callbacks import Callback, Guarded, scalars
from fsaf.training.run import Run
from fsaf.training.trainer import train
from synthetic import recipe

SMALL: dict[str, Any] = {"model__backbone": "test_efficientnet", "model__convs": 0}


class Noted(Callback):
    """Writes down what it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def on_start(self, run: Run) -> None:
        self.calls.append(("start", run.step))

    def on_step(self, record: dict[str, Any]) -> None:
        assert record["loss"] > 0
        self.calls.append(("step", record["step"]))

    def on_evaluation(self, record: dict[str, Any]) -> None:
        assert record["AP"] >= 0
        self.calls.append(("evaluation", record["step"]))

    def on_checkpoint(self, path: Path) -> None:
        assert path.is_file()
        self.calls.append(("checkpoint", path.name))

    def on_end(self, error: BaseException | None) -> None:
        self.calls.append(("end", type(error)))


class Fails(Callback):
    """Raises an exception at one of its calls."""

    def __init__(self, at: str) -> None:
        self.at, self.calls = at, 0

    def on_start(self, run: Run) -> None:
        self.call("on_start")

    def on_step(self, record: dict[str, Any]) -> None:
        self.call("on_step")

    def on_evaluation(self, record: dict[str, Any]) -> None:
        self.call("on_evaluation")

    def on_checkpoint(self, path: Path) -> None:
        self.call("on_checkpoint")

    def on_end(self, error: BaseException | None) -> None:
        self.call("on_end")

    def call(self, name: str) -> None:
        self.calls += 1
        if name == self.at:
            raise ConnectionError("the server\nis gone")


@pytest.mark.slow
def test_training_calls_callbacks_in_order(root: Path, tmp_path: Path) -> None:
    """Also those of a run that is resumed, and of one that an exception ends."""
    config = build_config(recipe(root, tmp_path / "out", **SMALL, train__max_steps=3), where="here")
    noted = Noted()
    run = fsaf.train(config, callbacks=[Callback(), noted])
    assert noted.calls == [
        ("start", 0), ("step", 1), ("step", 2), ("evaluation", 2), ("step", 3), ("evaluation", 3),
        ("checkpoint", "last.pt"), ("end", type(None)),
    ]  # fmt: skip
    noted, fails = Noted(), Fails("on_evaluation")
    with pytest.raises(ConnectionError):
        fsaf.train(resume=run, train__max_steps=4, callbacks=[noted, fails])
    assert noted.calls == [("start", 3), ("step", 4), ("evaluation", 4), ("end", ConnectionError)]
    assert load_checkpoint(run / "checkpoints" / "last.pt").step == 3


@pytest.mark.parametrize("at", ["on_start", "on_step", "on_evaluation", "on_checkpoint", "on_end"])
def test_a_guarded_callback_is_dropped_at_its_first_exception(at: str) -> None:
    said: list[str] = []
    inner = Fails(at)
    guarded = Guarded("abacus", inner, said.append)
    for _ in range(2):
        guarded.on_start(None)  # type: ignore[arg-type]
        guarded.on_step({})
        guarded.on_evaluation({})
        guarded.on_checkpoint(Path())
        guarded.on_end(None)
    assert said == [
        "warning: log.to abacus: ConnectionError: the server is gone; training continues without it"
    ]
    assert inner.calls == 1 + ["on_start", "on_step", "on_evaluation", "on_checkpoint", "on_end"].index(at)


def test_a_guarded_callback_does_not_swallow_a_signal() -> None:
    class Interrupted(Callback):
        def on_step(self, record: dict[str, Any]) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guarded("x", Interrupted(), print).on_step({})


def test_the_numbers_of_a_record() -> None:
    assert scalars({"step": 4, "loss": 0.5, "level_share": [0.5, 0.5], "grad_norm": None}) == {
        "train/step": 4,
        "train/loss": 0.5,
    }
    classes = {"cat": {"AP": 0.25, "AP50": 0.5, "boxes": 3}, "dog": {"AP": None, "AP50": None, "boxes": 0}}
    record = {"step": 4, "AP": 0.25, "val_loss": 0.5, "per_class": classes}
    assert scalars(record) == {"val/step": 4, "val/AP": 0.25, "val/loss": 0.5, "AP/cat": 0.25}


@pytest.mark.slow
def test_a_logger_that_fails_does_not_change_the_training(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for name, to in (("plain", []), ("failing", ["csv", "tensorboard"])):
        out = tmp_path / name
        with monkeypatch.context() as broken:
            broken.setattr("fsaf.training.loggers.Board.add", Fails("add").call)
            values = recipe(root, out, **SMALL, log__to=to)
            train(build_config(values, where="here"), callbacks=[])
        weights.append(load_checkpoint(out / "checkpoints" / "last.pt").weights)
        assert (out / "steps.csv").is_file() == bool(to)
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


@pytest.mark.parametrize(
    ("value", "told"),
    [("[csv, csv]", "each once"), ("[abacus]", "abacus"), ("csv", "log.to")],
)
def test_a_wrong_list_of_loggers_is_refused(value: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        build_config({}, [f"--log.to={value}"], where="here")
    assert "\n" not in str(error.value)
