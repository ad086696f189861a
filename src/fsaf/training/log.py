"""Log a run: metrics.jsonl, lines or a progress bar on the console, and callbacks."""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from fsaf.console import keep_writing
from fsaf.errors import UserError
from fsaf.files import write_text
from fsaf.processes import group
from fsaf.text import printable
from fsaf.training.callbacks import Callback
from fsaf.training.run import Run

EVERY = 60.0
"""Seconds between lines on the progress of an evaluation, where there is no bar."""


class RunLog:
    """Context manager that writes each record to the run folder and shows it."""

    def __init__(
        self, out: Path, total_steps: int, first_step: int, console: Console, evaluated: bool = True
    ) -> None:
        """Open the files. first_step: steps done before. evaluated: False if their evaluation is missing."""
        out.mkdir(parents=True, exist_ok=True)
        keep_writing(console)
        self.console, self.total_steps, self.path = console, total_steps, out / "metrics.jsonl"
        _cut_off(self.path, first_step, first_step if evaluated else first_step - 1)
        self.file = self.path.open("a", encoding="utf-8")
        self.start, self.first_step = time.perf_counter(), first_step
        self.bar = Progress(
            TextColumn("{task.completed}/{task.total}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16),
            TextColumn("ETA", table_column=Column(min_width=3)),
            TimeRemainingColumn(table_column=Column(min_width=7)),
            # Only the description gives way on a narrow terminal.
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=console,
            expand=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=total_steps, completed=first_step)
        self.evaluation_task = self.bar.add_task("evaluating", total=None, visible=False)
        self.evaluation_start = self.evaluation_said = 0.0
        self.given: set[str] = set()
        self.callbacks: list[Callback] = []

    def __enter__(self) -> "RunLog":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()
        with contextlib.suppress(OSError):  # a full disk, which has been reported
            self.file.close()
        for callback in reversed(self.callbacks):  # loggers first, which raise nothing
            callback.on_end(error)

    def begin(self, run: Run, callbacks: Sequence[Callback]) -> None:
        """Start the callbacks, which are called from now on."""
        for callback in callbacks:
            self.callbacks.append(callback)
            callback.on_start(run)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(printable(text), highlight=False, markup=False, soft_wrap=True)

    def advance(self, done: int) -> None:
        """Move the progress bar to ``done`` steps."""
        self.bar.update(self.task, completed=done)

    def evaluating(self, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` batches are evaluated; without a terminal once a minute."""
        now = time.perf_counter()
        if done == 0:
            self.bar.reset(self.evaluation_task, total=total, visible=True)
            self.evaluation_start = self.evaluation_said = now
        self.bar.update(self.evaluation_task, completed=done)
        if not self.console.is_terminal and now - self.evaluation_said >= EVERY:
            self.evaluation_said = now
            left = timedelta(seconds=int((now - self.evaluation_start) / done * (total - done)))
            self.say(f"evaluating: batch {done} of {total}  ETA {left}")

    def once(self, kind: str, text: str) -> None:
        """Print ``kind: text``, the first time that there is a text of this kind."""
        if kind not in self.given:
            self.say(f"{kind}: {text}")
        self.given.add(kind)

    def step(self, done: int, record: dict[str, Any], epochs: int) -> None:
        """Write and show a training record made after ``done`` steps."""
        self._write(record)
        for callback in self.callbacks:
            callback.on_step(record)
        each = group.each(record["images_per_second"] / group.processes(), ".1f")
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

    def evaluation(self, record: dict[str, Any]) -> None:
        """Write the record of an evaluation."""
        self.bar.update(self.evaluation_task, visible=False)
        self._write(record)
        for callback in self.callbacks:
            callback.on_evaluation(record)

    def checkpoint(self, path: Path) -> None:
        """Tell the callbacks that a checkpoint was written."""
        for callback in self.callbacks:
            callback.on_checkpoint(path)

    def sync(self) -> None:
        """Sync all records to disk. Call it before a checkpoint is written: a resumed run relies on them."""
        with self._telling():
            os.fsync(self.file.fileno())

    def _write(self, record: dict[str, Any]) -> None:
        with self._telling():
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot write the record ({error}); free some space, then resume the run"
            ) from error


def _cut_off(path: Path, step: int, evaluation: int) -> None:
    """Remove training records after ``step`` and evaluations after step ``evaluation``.

    A run that stopped later than its last checkpoint makes them again.
    """
    if not path.is_file():
        return
    text, kept = path.read_text(encoding="utf-8", errors="replace"), []
    for line in text.splitlines(keepends=True):
        try:
            record = json.loads(line)
            if line.endswith("\n") and record["step"] <= (step if "loss" in record else evaluation):
                kept.append(line)
        except (ValueError, KeyError, TypeError):  # cut short when the process died
            continue
    if (left := "".join(kept)) != text:
        write_text(path, left)


class NoLog:
    """``RunLog`` of every process but the main one: writes and shows nothing."""

    def __enter__(self) -> "NoLog":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Do nothing."""

    def once(self, kind: str, text: str) -> None:
        """Do nothing."""

    def advance(self, done: int) -> None:
        """Do nothing."""

    def evaluating(self, done: int, total: int) -> None:
        """Do nothing."""

    def step(self, done: int, record: dict[str, Any], epochs: int) -> None:
        """Do nothing."""

    def evaluation(self, record: dict[str, Any]) -> None:
        """Do nothing."""

    def begin(self, run: Run, callbacks: Sequence[Callback]) -> None:
        """Do nothing."""

    def checkpoint(self, path: Path) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""
