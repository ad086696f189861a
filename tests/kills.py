"""Functions that tests run in processes of their own: training with a kill, a signal or a limit built in."""

import multiprocessing
import os
import resource
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

import fsaf
from fsaf import cli
from fsaf.config import Config
from fsaf.data import samples
from fsaf.detection.detector import Detector
from fsaf.errors import UserError
from fsaf.model.detector import FSAF
from fsaf.processes import group
from fsaf.training import session, start, trainer

SOURCE = str(Path(fsaf.__file__).parent)
WATCHED = tuple(
    f"{SOURCE}/{name}"
    for name in ("training/", "processes/", "checkpoints/format.py", "files.py", "scoring/evaluate.py")
)
"""Code that changes files."""


class Dropping(FSAF):
    """A detector with dropout, as some backbones have it."""

    def forward(self, images: Tensor, sizes_b2: Tensor | None = None) -> Any:
        outputs = super().forward(images, sizes_b2)
        drop = torch.nn.functional.dropout
        logits = [drop(x, 0.1, self.training) for x in outputs.free.logits]
        return outputs._replace(free=outputs.free._replace(logits=logits))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_until(config: Config, said: Path, line: int | None = None, byte: int | None = None) -> None:
    """Train with dropout; record the images of each step in ``said``, at the end the number of lines run.

    line: die at that line of Python in ``WATCHED``. byte: die as that byte of checkpoints is written.
    """
    torch.set_num_threads(1)
    start.FSAF = Dropping  # type: ignore[misc]
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
        """A file that counts its bytes and kills the process in the middle of a write."""

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
    step = session.train_step

    def noting(*arguments: Any) -> Any:
        result = step(*arguments)
        with said.open("a") as file:
            file.write(f"{arguments[0].step} {int(arguments[2].long().sum())} {arguments[4]}\n")
        return result

    session.train_step = noting
    with said.with_suffix(".console").open("a") as file:
        sys.settrace(count)
        try:
            trainer.train(config, Console(file=file, width=400))
        finally:
            sys.settrace(None)
    said.with_suffix(".counts").write_text(f"{lines} {written}")


def signalled(step: int, *send: Any) -> None:
    """Make training call ``send[0](*send[1:])`` in that step, the first time it is made."""
    original = session.train_step

    def sending(run: Any, *arguments: Any) -> Any:
        if run.step + 1 == step and group.restarts() == 0:
            send[0](*send[1:])
        return original(run, *arguments)

    session.train_step = sending


def command(
    said: Path, arguments: list[str], send: str, number: int, step: int = 0, again: bool = False
) -> None:
    """Run ``fsaf`` as a command, and send it a signal in a step, or in an evaluation (step 0).

    Exits with its status. send: ``none``, ``process``, or ``group``: its loader's workers too, as a terminal
    and Slurm do. again: send it twice, and have the step last for ever.
    """
    torch.set_num_threads(1)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for output in (1, 2):
        os.dup2(file, output)
    os.setpgrp()

    def send_it() -> None:
        target = -os.getpgrp() if send == "group" else os.getpid()
        os.kill(target, number)
        if again:
            time.sleep(0.05)
            os.kill(target, number)
            for _ in range(600):  # the system may give a signal to another thread, which wakes no long sleep
                time.sleep(0.1)

    if step:
        signalled(step, send_it)
    elif send != "none":
        original = Detector.detect

        def detect(*given: Any) -> Any:
            send_it()
            return original(*given)

        Detector.detect = detect  # type: ignore[method-assign]
    status = cli.main(arguments)
    sys.stdout.flush()
    os._exit(status)


def train_signalled(config: Config, pid: int, number: int, rank: int, step: int) -> None:
    """Train as one of several processes; in that step ``rank`` sends a signal to ``pid``, or itself (0)."""
    if os.environ["RANK"] == str(rank):
        signalled(step, os.kill, pid or os.getpid(), number)
    with Path(os.devnull).open("w") as nowhere:
        trainer.train(config, Console(file=nowhere))


def train_limited(config: Config, said: Path, limit: int) -> None:
    """Train with a limit of ``limit`` bytes for each file; write the error message to ``said``."""
    torch.set_num_threads(1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with Path(os.devnull).open("w") as nowhere:
            trainer.train(config, Console(file=nowhere))
    except UserError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        said.write_text(str(error))


def train_losing_a_worker(config: Config, said: Path, name: str) -> None:
    """Train; kill the first loader process that reads image ``name``; write the error message to ``said``."""
    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # so that they inherit this
    read = samples.read_image

    def dying(path: Path, *rest: Any) -> Any:
        if path.name == name and torch.utils.data.get_worker_info():
            die()
        return read(path, *rest)

    samples.read_image = dying
    try:
        with Path(os.devnull).open("w") as nowhere:
            trainer.train(config, Console(file=nowhere))
    except UserError as error:
        said.write_text(str(error))
