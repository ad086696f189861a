"""Trainings that end before their last step, and the networks of single epochs that are kept."""

import time
from pathlib import Path

import pytest

import fsaf
from fsaf.checkpoints.format import load_checkpoint
from fsaf.config import TrainConfig
from fsaf.errors import UserError
from fsaf.training import ending
from training.test_best import curve, score, train


def last(out: Path) -> int | None:
    return load_checkpoint(out / "checkpoints" / "last.pt").step


@pytest.mark.parametrize(("key", "value"), [("patience", -1), ("hours", 0.0), ("keep_every", -2)])
def test_settings_that_make_no_sense_are_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"train\.{key} = {value}"):
        TrainConfig(**{key: value})


@pytest.mark.slow
def test_training_ends_after_evaluations_without_a_better_ap(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An equal AP is no better one. The run says so, is finished, and goes on with more patience."""
    score(monkeypatch, 0.1, 0.3, 0.3, 0.2, 0.4, 0.1, 0.1)
    out = tmp_path / "out"
    lines = train(root, out, train__patience=2, train__epochs=6)
    assert curve(out) == [0.1, 0.3, 0.3, 0.2] and last(out) == 8
    assert lines[-2] == (
        "training ends early, after step 8 of 12: no higher AP in 2 evaluations (train.patience)"
    )
    assert "best AP 0.300, of epoch 3 of 6" in lines[-1]
    (line,) = train(root, out, train__patience=2, train__epochs=6, resume=True)
    assert line.startswith("finished: no higher AP in 2 evaluations (train.patience), 8 steps; best AP 0.300")
    assert line.endswith(f"fsaf train --resume {out} --train.patience N")
    lines = train(root, out, train__patience=0, train__epochs=6, resume=True)
    assert curve(out) == [0.1, 0.3, 0.3, 0.2, 0.4, 0.1] and last(out) == 12
    assert not [line for line in lines if "ends early" in line]


@pytest.mark.slow
def test_a_resumed_run_keeps_the_count(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score(monkeypatch, 0.3, 0.2, 0.1)
    settings = {"train__patience": 2, "train__epochs": 6}
    train(root, tmp_path / "out", **settings, train__max_steps=4)
    train(root, tmp_path / "out", **settings, resume=True)
    assert curve(tmp_path / "out") == [0.3, 0.2, 0.1] and last(tmp_path / "out") == 6


@pytest.mark.slow
def test_training_ends_evaluated_and_saved_when_its_time_is_up(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an epoch. Here each look at the clock is an hour."""
    passed = iter(range(1, 99))
    out = tmp_path / "out"
    settings = {"train__hours": 2.5, "train__keep_every": 1, "log__every": 50}
    with monkeypatch.context() as clock:
        clock.setattr(ending.Run, "seconds", property(lambda run: 3600.0 * next(passed)))
        lines = train(root, out, **settings)
    # Looks: after step 1; after step 2 and its evaluation, so 3 h have passed when step 3 is due.
    assert last(out) == 2 and len(curve(out)) == 1
    assert lines[-2].endswith("after step 2 of 8: 2.5 h have passed (train.hours)")
    checkpoint = load_checkpoint(out / "checkpoints" / "last.pt")
    assert checkpoint.training is not None and checkpoint.training.timed_out
    assert [path.name for path in (out / "checkpoints").glob("epoch-*")] == ["epoch-0001.pt"]
    (line,) = train(root, out, **settings, resume=True)
    assert line.startswith("finished: 2.5 h have passed") and "--train.hours N" in line


@pytest.mark.slow
def test_time_before_a_run_was_resumed_counts(root: Path, tmp_path: Path) -> None:
    out, start = tmp_path / "out", time.monotonic()
    train(root, out, train__max_steps=3)
    before = load_checkpoint(out / "checkpoints" / "last.pt").seconds
    assert 0 < before < time.monotonic() - start
    lines = train(root, out, train__hours=before / 3600, resume=True)
    assert last(out) == 4 and "ends early, after step 4 of 8" in lines[-2]
    assert load_checkpoint(out / "checkpoints" / "last.pt").seconds > before
    assert len(curve(out)) == 2 + 1  # after epoch 1, after step 3 as the last of the first run, after step 4
    lines = train(root, out, train__hours=1.0, resume=True)
    assert last(out) == 8 and "ends early" not in lines[-2]


@pytest.mark.slow
def test_the_network_of_every_so_many_epochs_is_kept(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(root, out, train__keep_every=3, train__epochs=7, train__evaluate_every=0)
    kept = sorted((out / "checkpoints").glob("epoch-*"))
    assert [path.name for path in kept] == ["epoch-0003.pt", "epoch-0006.pt"]
    assert [load_checkpoint(path).step for path in kept] == [6, 12]
    assert fsaf.load(kept[0], "cpu").classes.names == ("green", "red", "blue")


@pytest.mark.slow
def test_patience_without_evaluations_is_noted(root: Path, tmp_path: Path) -> None:
    lines = train(root, tmp_path / "out", train__patience=2, train__evaluate_every=0, train__epochs=1)
    assert "note: train.patience does nothing, since nothing is evaluated" in lines
