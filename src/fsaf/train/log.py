"""The record of a run: metrics.jsonl, TensorBoard, and lines or a bar for the person watching."""

import json
import time
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from fsaf.train import distributed


class RunLog:
    """Writes each record to the run folder and shows it; a context manager."""

    def __init__(self, out: Path, total_steps: int, first_step: int, console: Console) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.console, self.total_steps = console, total_steps
        _cut_off(out / "metrics.jsonl", first_step)
        self.file = (out / "metrics.jsonl").open("a", encoding="utf-8")
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=first_step or None)
        self.start, self.first_step = time.perf_counter(), first_step
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=total_steps, completed=first_step)

    def __enter__(self) -> "RunLog":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.bar.stop()
        self.file.close()
        self.board.close()

    def say(self, text: str) -> None:
        """A line for the person watching."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def step(self, done: int, record: dict[str, Any], epochs: int) -> None:
        """A training record after ``done`` steps."""
        self._write(record, "train", done)
        each = distributed.each(record["images_per_second"] / distributed.processes(), ".1f")
        text = (
            f"epoch {record['epoch']}/{epochs}  loss {record['loss']:.4f} "
            f"(cls {record['loss_cls']:.4f}, box {record['loss_box']:.4f})  lr {record['lr']:.2e}  "
            f"{record['images_per_second']:.1f} img/s{each}"
        )
        if self.console.is_terminal:
            self.bar.update(self.task, completed=done, description=text)
        else:
            seconds = (time.perf_counter() - self.start) / max(done - self.first_step, 1)
            left = timedelta(seconds=int(seconds * (self.total_steps - done)))
            self.say(f"step {done}/{self.total_steps}  {text}  ETA {left}")

    def evaluation(self, done: int, record: dict[str, Any]) -> None:
        """A record of an evaluation after ``done`` steps."""
        self._write(record, "val", done)

    def _write(self, record: dict[str, Any], group: str, done: int) -> None:
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        for key, value in record.items():
            if isinstance(value, (int, float)):
                self.board.add_scalar(f"{group}/{key}", value, done)


def _cut_off(path: Path, step: int) -> None:
    """Drop the records after ``step`` of a run that was stopped later than its checkpoint, and goes on."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):  # cut short as the process died
            break
    path.write_text("".join(kept), encoding="utf-8")


class NoLog:
    """In place of a ``RunLog`` in every process but the main one: writes and shows nothing."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Nothing."""

    def step(self, done: int, record: dict[str, Any], epochs: int) -> None:
        """Nothing."""

    def evaluation(self, done: int, record: dict[str, Any]) -> None:
        """Nothing."""
