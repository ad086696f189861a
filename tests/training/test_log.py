"""A run that stopped later than its checkpoint records each step once."""

import io
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from fsaf.training.log import RunLog


@pytest.mark.parametrize("checkpoint", [0, 1])
def test_steps_that_are_made_again_are_in_each_record_once(
    tmp_path: Path, checkpoint: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the run died before its first checkpoint."""
    # TensorBoard orders files of the same second and process by this number as text: 10 before 9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    for first, loss in ((0, 1.0), (checkpoint, 2.0)):
        with RunLog(tmp_path, 3, first, Console(file=io.StringIO())) as log:
            for step in range(first + 1, 4):
                record = {"step": step, "epoch": 1, "loss": loss, "loss_cls": 0.5, "loss_box": 0.5, "lr": 0.1}
                log.step(step, record | {"images_per_second": 1.0}, 1)
    expected = [1.0] * checkpoint + [2.0] * (3 - checkpoint)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(row.step, row.value) for row in board.Scalars("train/loss")] == list(enumerate(expected, 1))
    assert [line.count('"loss": 2.0') for line in (tmp_path / "metrics.jsonl").open()] == [
        int(loss == 2) for loss in expected
    ]
