"""What the processes of the tests about dying run: training with a death, a signal or a limit built in."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

import fsaf
from fsaf.config import Config
from fsaf.train import run, trainer

SOURCE = str(Path(fsaf.__file__).parent)
WATCHED = tuple(f"{SOURCE}/{name}" for name in ("train/", "files.py", "results/evaluate.py"))
"""Where what is on the disk changes."""


class Dropping(run.FSAF):
    """The detector with dropout, as some backbones have it."""

    def forward(self, images: Tensor, sizes_b2: Tensor | None = None) -> Any:
        outputs = super().forward(images, sizes_b2)
        drop = torch.nn.functional.dropout
        return outputs._replace(logits=[drop(x, 0.1, self.training) for x in outputs.logits])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_until(config: Config, said: Path, line: int | None = None, byte: int | None = None) -> None:
    """Train, with dropout; notes the images of each step in ``said``, and at the end how many lines were run.

    line: die at that line of Python in ``WATCHED``. byte: die as that byte of checkpoints is written.
    """
    torch.set_num_threads(1)
    run.FSAF = Dropping  # type: ignore[misc]
    lines = written = 0

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(WATCHED):
            return None
        if event == "line":
            lines += 1
            if lines == line:
                die()
        return count

    save = torch.save

    class Counting:
        """A file that counts, and dies in the middle of a write."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: Any) -> int:
            nonlocal written
            left = (byte or 1 << 60) - written
            if len(data) >= left:
                self.file.write(memoryview(data)[:left])
                self.file.flush()
                die()
            written += len(data)
            return int(self.file.write(data))

        def flush(self) -> None:
            self.file.flush()

    torch.save = lambda content, file: save(content, Counting(file))  # type: ignore[assignment]
    step = trainer.train_step

    def noting(*arguments: Any) -> Any:
        result = step(*arguments)
        with said.open("a") as file:
            file.write(f"{arguments[0].step} {int(arguments[2].long().sum())} {arguments[4]}\n")
        return result

    trainer.train_step = noting
    with said.with_suffix(".console").open("a") as file:
        sys.settrace(count)
        try:
            trainer.train(config, Console(file=file, width=400))
        finally:
            sys.settrace(None)
    said.with_suffix(".counts").write_text(f"{lines} {written}")
