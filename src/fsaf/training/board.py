"""Scalars for TensorBoard, written at once and to an open file.

PyTorch's SummaryWriter writes in a thread, which prints a traceback if the disk is full, and opens the file
by its name for each write, which fails once the run folder is moved.
"""

import os
import platform
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import scalar


class Board:
    """An event file of TensorBoard."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Open a new file in ``folder``. first_step: TensorBoard hides earlier files from this step on."""
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{now:.0f}.{platform.node()}.{os.getpid()}.{time.monotonic_ns()}"
        self.file = (folder / name).open("ab", buffering=0)
        self.records = RecordWriter(self.file)
        self._write(step=first_step, file_version="brain.Event:2")
        self._write(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, name: str, value: float, step: int) -> None:
        """Write the value of a scalar after ``step`` steps."""
        self._write(step=step, summary=scalar(name, value))

    def close(self) -> None:
        """Close the file."""
        self.records.close()

    def _write(self, **fields: Any) -> None:
        self.records.write(Event(wall_time=time.time(), **fields).SerializeToString())
