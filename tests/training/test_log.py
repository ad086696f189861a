"""A run that stopped later than its checkpoint records each step once."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from fsaf.training.log import RunLog
from fsaf.training.loggers import TensorBoard


@pytest.mark.parametrize("checkpoint", [0, 1])
def test_steps_that_are_made_again_are_in_each_record_once(
    tmp_path: Path, checkpoint: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the run died before its first checkpoint."""
    # TensorBoard orders files of the same second and process by this number as text: 10 before 9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    for first, loss in ((0, 1.0), (checkpoint, 2.0)):
        with RunLog(tmp_path, 3, first, Console(file=io.StringIO())) as log:
            log.begin(SimpleNamespace(out=tmp_path, step=first), [TensorBoard()])  # type: ignore[arg-type]
            for step in range(first + 1, 4):
                record = {"step": step, "epoch": 1, "loss": loss, "loss_cls": 0.5, "loss_box": 0.5, "lr": 0.1}
                log.step(step, record | {"images_per_second": 1.0}, 1)
    expected = [1.0] * checkpoint + [2.0] * (3 - checkpoint)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(row.step, row.value) for row in board.Scalars("train/loss")] == list(enumerate(expected, 1))
    assert [line.count('"loss": 2.0') for line in (tmp_path / "metrics.jsonl").open()] == [
        int(loss == 2) for loss in expected
    ]


def test_the_bar_moves_with_each_step_and_shows_evaluations(tmp_path: Path) -> None:
    """Between two records, which may be minutes apart."""
    terminal = Console(file=io.StringIO(), force_terminal=True, width=200)
    with RunLog(tmp_path, 30, 0, terminal) as log:
        training, evaluating = log.bar.tasks
        for step in range(1, 4):
            log.advance(step)
            assert training.completed == step
        log.evaluating(0, 8)
        log.evaluating(3, 8)
        assert evaluating.visible and (evaluating.completed, evaluating.total) == (3, 8)
        log.evaluation({"step": 3, "epoch": 1, "AP": 0.5})
        assert not evaluating.visible


def test_without_a_terminal_a_long_evaluation_says_how_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line a minute with the time left: here a batch takes 20 seconds."""
    now = iter(range(0, 1000, 20))
    file = io.StringIO()
    with RunLog(tmp_path, 30, 0, Console(file=file, width=200)) as log:
        monkeypatch.setattr("fsaf.training.log.time.perf_counter", lambda: float(next(now)))
        for done in range(8):
            log.evaluating(done, 8)
        monkeypatch.undo()
    assert file.getvalue().splitlines() == [
        "evaluating: batch 3 of 8  ETA 0:01:40",
        "evaluating: batch 6 of 8  ETA 0:00:40",
    ]


def test_a_narrow_terminal_shows_steps_and_time_left(tmp_path: Path) -> None:
    """Of 80 columns; only the losses are cut."""
    file = io.StringIO()
    record = {"step": 1, "epoch": 1, "loss": 1.0, "loss_cls": 0.5, "loss_box": 0.5, "lr": 0.1}
    with RunLog(tmp_path, 12345, 0, Console(file=file, force_terminal=True, width=80)) as log:
        log.step(1234, record | {"images_per_second": 12.3}, 100)
    lines = [line for line in file.getvalue().splitlines() if "1234/12345" in line]
    assert lines and all("ETA" in line and "epoch 1/100" in line for line in lines)
