"""Start several processes on this machine, and bring back the error or signal that ended them."""

import json
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fsaf import errors
from fsaf.console import guarded_output
from fsaf.errors import Stopped, UserError
from fsaf.processes.group import launched
from fsaf.processes.stop import SIGNALS


def launch(
    function: Callable[..., None],
    arguments: Sequence[Any],
    count: int,
    max_restarts: int = 0,
    start_method: str = "spawn",
) -> None:
    """Run ``function(*arguments)`` in ``count`` processes on this machine, under PyTorch's elastic launcher.

    If one process dies, all are restarted, at most ``max_restarts`` times. Raises the UserError of a process
    (without a restart), Stopped for a signal, and RuntimeError if the processes failed.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if launched():
        raise UserError("--devices: torchrun has started these processes already; leave out --devices")
    with tempfile.TemporaryDirectory(prefix="fsaf-") as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=Path(folder).name,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=max_restarts,
            start_method=start_method,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            **_passed_on(LaunchConfig),
        )
        failed, received = None, 0
        try:
            with _own_handlers():
                elastic_launch(config, _work)(Path(folder), count, function, list(arguments))
        except ChildFailedError as error:
            number, failure = error.get_first_failure()
            failed = (
                f"process {number} of {count} ended with {failure.signal_name()}, {max_restarts} restarts"
            )
            if failure.exitcode >= 0:
                failed = f"process {number} of {count} failed: {failure.message}"
        except SignalException as error:
            received = error.sigval
        _raise_noted(Path(folder))
        if received:
            raise Stopped(f"stopped by {signal.Signals(received).name}", received)
        if failed:
            raise RuntimeError(failed)


def _passed_on(config: type[Any]) -> dict[str, Any]:
    """Return the option of a LaunchConfig that passes ``SIGNALS`` on to the processes, if it has one.

    A signal that is ignored stays ignored, such as SIGHUP under ``nohup``.
    """
    if "signals_to_handle" not in config.__dataclass_fields__:
        return {}
    return {
        "signals_to_handle": ",".join(
            each.name for each in SIGNALS if signal.getsignal(each) is not signal.SIG_IGN
        )
    }


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Keep the signal handlers, which the elastic launcher replaces."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and handler is not signal.getsignal(number):
                signal.signal(number, handler)


def _work(folder: Path, count: int, function: Callable[..., None], arguments: list[Any]) -> None:
    """Run in each process. A UserError or Stopped goes into a file of ``folder``."""
    if (folder / "mistake").is_file() or (folder / "stopped").is_file():
        return  # another process has noted it, and the launcher has restarted those that waited for it
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, math.ceil((os.cpu_count() or 1) / count)))
    try:
        with guarded_output(lasting=True):
            function(*arguments)
    except Stopped as stopped:  # all processes stop after the same step, and everything is saved
        _note(folder / "stopped", [stopped.signal.value, str(stopped)])
        sys.exit(128 + stopped.signal)  # a launcher that passed the signal on accepts no results any more
    except UserError as error:
        # Processes can be sent only classes that the launcher's process can find.
        kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        _note(folder / f"mistake.{os.environ['RANK']}", [])
        if not (folder / "mistake").is_file():
            _note(folder / "mistake", [kind, str(error)])
        # If every process hits the error, exit normally. Otherwise exit non-zero, so that the launcher stops
        # the processes that wait.
        for _ in range(100):
            if len(list(folder.glob("mistake.*"))) == count:
                return
            time.sleep(0.1)
        sys.exit(2)


def _note(file: Path, content: list[Any]) -> None:
    """Write a file that other processes see whole or not at all."""
    draft = file.with_name(f"draft.{file.name}.{os.environ['RANK']}")
    draft.write_text(json.dumps(content), encoding="utf-8")
    draft.replace(file)


def _raise_noted(folder: Path) -> None:
    """Raise the UserError or Stopped that a process has noted, if any."""
    mistake, stopped = folder / "mistake", folder / "stopped"
    if mistake.is_file():
        kind, text = json.loads(mistake.read_text(encoding="utf-8"))
        raise getattr(errors, kind)(text)
    if stopped.is_file():
        number, text = json.loads(stopped.read_text(encoding="utf-8"))
        raise Stopped(text, number)
