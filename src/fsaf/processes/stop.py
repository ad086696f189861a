"""Signals as a request to stop after the current step: Ctrl-C, SIGTERM, SIGHUP, SIGUSR1, SIGXCPU."""

import contextlib
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

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU")
    if hasattr(signal, name)  # Windows has only the first two
)
"""Ctrl-C; spot machines and Slurm; a closed terminal; Slurm's ``--signal=USR1@60``; a limit of CPU time."""
AT_ONCE = (signal.SIGINT, signal.SIGTERM)
"""Signals that end the process when they come second. Others repeat by themselves: a closing terminal sends
SIGHUP several times, the kernel sends SIGXCPU every second."""
ONE_REQUEST = 1.0
"""Seconds within which a launcher and a terminal pass on the same signal."""


class StopRequest:
    """Context manager: the first of ``SIGNALS`` sets ``number``; a second one takes its default action.

    A signal that is ignored stays ignored, such as SIGHUP under ``nohup``. Outside of the main thread Python
    receives no signals, and ``number`` stays 0.
    """

    def __init__(self) -> None:
        self.number = 0
        """The signal received; 0 for none."""
        self.came = 0.0
        self.before: dict[signal.Signals, Any] = {}
        self.question: tuple[torch.Tensor, Any] | None = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                ignored = signal.getsignal(number) is signal.SIG_IGN
                if not ignored or number == signal.SIGINT:  # shells ignore it for every job in the background
                    self.before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for number, handler in self.before.items():
            # It will come again, and must not end the process before its message.
            repeats = number == self.number and number not in AT_ONCE
            signal.signal(number, signal.SIG_IGN if repeats else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            self._repeated(number)
            return
        self.number, self.came = number, time.monotonic()
        if is_main():  # not by print, which the signal may have interrupted
            text = f"\n{signal.Signals(number).name}: stopping after this step; once more to stop at once\n"
            with contextlib.suppress(OSError, ValueError):  # a closed pipe, a terminal that has gone
                os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, text.encode())

    def _repeated(self, number: int) -> None:
        one_request = time.monotonic() - self.came <= ONE_REQUEST
        if number not in AT_ONCE or (one_request and (launched() or self.number not in AT_ONCE)):
            return
        self.__exit__(None, None, None)
        signal.raise_signal(number)

    def agreed(self) -> int:
        """Return the signal that all processes stop for now, 0 for none; each calls this after every step.

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
