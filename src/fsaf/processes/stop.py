"""Ctrl-C and SIGTERM (a spot machine, Slurm) as a request to stop after the step that is being made."""

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from fsaf.processes.group import is_main, launched, processes

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ONE_REQUEST = 1.0
"""Seconds within which a launcher and a terminal pass on the same signal."""


class StopRequest:
    """Notes the first signal while it is entered; the second does what it would have done without this.

    Away from the main thread, where Python takes no signals, it notes none.
    """

    def __init__(self) -> None:
        self.number = 0
        """The signal that has come; 0 for none."""
        self.came = 0.0
        self.before: dict[signal.Signals, Any] = {}
        self.question: tuple[torch.Tensor, Any] | None = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self.before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            if not launched() or time.monotonic() - self.came > ONE_REQUEST:
                self.__exit__(None, None, None)
                signal.raise_signal(number)
            return
        self.number, self.came = number, time.monotonic()
        if is_main():  # not print, which may be what the signal came into
            text = f"\n{signal.Signals(number).name}: stopping after this step; once more to stop at once\n"
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())

    def agreed(self) -> int:
        """The signal that all processes now stop for, 0 for none; to be called by each after every step.

        With several processes the answer is that of the step before: nobody waits for it, and all get the
        same one.
        """
        if processes() == 1:
            return self.number
        answer = 0
        if self.question:
            value, work = self.question
            work.wait()
            answer = int(value)
        value = torch.tensor(self.number)
        self.question = (value, dist.all_reduce(value, dist.ReduceOp.MAX, async_op=True))
        return answer
