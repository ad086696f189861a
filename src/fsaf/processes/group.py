"""Many processes, one a device: starting them, and the few things they tell each other.

Every function also works in a process that is alone, where it does nothing or returns what it was given.
"""

import inspect
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fsaf.device import process_group_backend, resolve_device
from fsaf.errors import Stopped, UserError

T = TypeVar("T")

_store: dist.Store | None = None
"""Where processes can leave each other notes, also while another waits in a collective operation."""


# -- the group ------------------------------------------------------------------------------------------


def launched() -> bool:
    """Whether torchrun, or ``launch``, started this process."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def restarts() -> int:
    """How often the launcher has restarted the processes."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def launch_id() -> str:
    """What a launcher calls this launch (torchrun's ``--rdzv-id``), also after a restart; else empty."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "")


@contextmanager
def join(name: str) -> Iterator[torch.device]:
    """Be one of the processes of a launcher, if there is one; yields this process' device.

    name: as ``resolve_device``, without a number where there are several processes: each takes the device
    of its ``LOCAL_RANK``. Raises UserError where this machine has not that many.
    """
    global _store
    if not launched():
        yield resolve_device(name)
        return
    device = resolve_device(name)
    one_machine = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if shared and not one_machine and os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0":
        raise UserError(
            "--max-restarts on several machines: give each torchrun TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, "
            "or processes look for those that are gone when they are restarted"
        )
    store, rank, size = next(dist.rendezvous("env://"))
    # After a restart the launcher's store still holds the addresses of processes that are gone. Several
    # machines count their restarts each for themselves, so there the count cannot tell starts apart.
    _store = dist.PrefixStore(f"start-{restarts()}", store) if one_machine else store
    kind = device.type
    backend = "gloo" if kind == "cpu" else f"cpu:gloo,{kind}:{process_group_backend(device)}"
    dist.init_process_group(backend, store=_store, rank=rank, world_size=size)
    if kind != "cpu":
        device = own_device(name, kind, int(os.environ["LOCAL_RANK"]), processes())
        torch.get_device_module(device).set_device(device)
    stopped = None
    try:
        yield device
    except Stopped as error:  # as do all, after the same step
        stopped = error
    gather_all(None)  # nobody leaves while another needs it
    dist.destroy_process_group()
    if stopped:
        raise stopped


def own_device(name: str, kind: str, local: int, count_all: int) -> torch.device:
    """The accelerator of process ``local`` of this machine, of ``count_all`` processes in all.

    name: as the config has it. kind: the type of device. Raises UserError as ``join``.
    """
    if ":" in name and count_all > 1:
        raise UserError(f"device {name!r}: with several processes each takes its own; give {kind}")
    count = torch.get_device_module(kind).device_count()
    if local >= count:
        raise UserError(f"{local + 1} or more processes on this machine, which has {count} {kind} devices")
    return torch.device(name if ":" in name else f"{kind}:{local}")


def processes() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """This process' number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Return True in the process that prints and writes files, also outside of ``join``."""
    return rank() == 0 if dist.is_initialized() or not launched() else os.environ["RANK"] == "0"


def each(value: float | str, form: str = "") -> str:
    """`` (2 on each of 4)`` to follow a total in a message; nothing for one process."""
    return f" ({value:{form}} on each of {processes()})" if processes() > 1 else ""


# -- what they tell each other ----------------------------------------------------------------------------


def gather_all(value: T) -> list[T]:
    """The value of every process, in order of rank. Waits for all."""
    if processes() == 1:
        return [value]
    values: list[Any] = [None] * processes()
    dist.all_gather_object(values, value)
    return values


def gather(value: T) -> list[T]:
    """The value of every process on the main one, an empty list on the others. Waits for all."""
    if processes() == 1:
        return [value]
    values: list[Any] | None = [None] * processes() if is_main() else None
    dist.gather_object(value, values)
    return values or []


def from_main(make: Callable[[], T]) -> T:
    """What ``make`` gives, or the UserError it raises, on the main process; on all of them."""
    if processes() == 1:
        return make()
    result: list[Any] = [None]
    if is_main():
        try:
            result = [make()]
        except UserError as error:
            result = [error]
    dist.broadcast_object_list(result)
    if isinstance(result[0], UserError):
        raise result[0]
    return result[0]


def mean_over_processes(values: Tensor) -> Tensor:
    """Mean of a tensor over the processes; a new tensor on the same device, without reading it."""
    if processes() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / processes()


@torch.no_grad()
def copy_from_main(module: nn.Module) -> None:
    """Overwrite weights and buffers with those of the main process."""
    if processes() == 1:
        return
    for value in module.state_dict().values():
        received = value.contiguous()  # collective operations want plain memory, convolutions channels last
        dist.broadcast(received, 0)
        value.copy_(received)


def averaging(module: nn.Module, device: torch.device, buffers: bool) -> nn.Module:
    """``module`` whose gradients are averaged over processes during the backward pass.

    buffers: copy the main process' buffers before each step, for batch norm that learns its statistics.
    """
    if not dist.is_initialized():
        return module
    wrap = nn.parallel.DistributedDataParallel
    new = "forward_sync_buffers" in inspect.signature(wrap).parameters  # the other is deprecated in 2.15
    options: dict[str, Any] = {"forward_sync_buffers" if new else "broadcast_buffers": buffers}
    devices = None if device.type == "cpu" else [device]
    return wrap(module, device_ids=devices, gradient_as_bucket_view=True, **options)


def without_averaging(module: Any) -> AbstractContextManager[None]:
    """Context in which backward passes of ``averaging``'s result add to this process' own gradients alone."""
    return module.no_sync() if isinstance(module, nn.parallel.DistributedDataParallel) else nullcontext()


def tells() -> bool:
    """Whether this process prints the mistake it stopped at: the first process of all to ask.

    Before they have met, the first process of each machine.
    """
    if not launched():
        return True
    if _store is None:
        return os.environ["LOCAL_RANK"] == "0"
    try:
        return _store.add("fsaf/mistakes", 1) == 1
    except RuntimeError:  # the process that kept the store has stopped, and said why
        return False


# -- starting them on this machine --------------------------------------------------------------------------


def launch(
    function: Callable[..., None],
    arguments: Sequence[Any],
    count: int,
    max_restarts: int = 0,
    start_method: str = "spawn",
) -> None:
    """Run ``function(*arguments)`` in ``count`` processes on this machine, under PyTorch's elastic launcher.

    Where one dies all are started again, ``max_restarts`` times. Raises UserError for a mistake of the user's
    that one of them found (they are not started again for it), Stopped for a signal, RuntimeError where they
    failed.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if launched():
        raise UserError("--devices: these processes were started by torchrun already; leave --devices out")
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
        )
        mistake, stopped = Path(folder) / "mistake", Path(folder) / "stopped"
        failed, received = None, 0
        try:
            with _own_handlers():
                elastic_launch(config, _work)(mistake, count, function, list(arguments))
        except ChildFailedError as error:
            number, failure = error.get_first_failure()
            failed = (
                f"process {number} of {count} ended with {failure.signal_name()}, {max_restarts} restarts"
            )
            if failure.exitcode >= 0:
                failed = f"process {number} of {count} failed: {failure.message}"
        except SignalException as error:
            received = error.sigval
        if mistake.is_file():
            raise UserError(mistake.read_text(encoding="utf-8"))
        if stopped.is_file():
            given, text = stopped.read_text(encoding="utf-8").split(" ", 1)
            raise Stopped(text, int(given))
        if received:
            raise Stopped(f"stopped by {signal.Signals(received).name}", received)
        if failed:
            raise RuntimeError(failed)


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Keeps the signal handlers, which the elastic launcher replaces."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and handler is not signal.getsignal(number):
                signal.signal(number, handler)


def _work(mistake: Path, count: int, function: Callable[..., None], arguments: list[Any]) -> None:
    """What each process runs; a mistake of the user's goes into file ``mistake``."""
    # Found before this restart, by a process that others were waiting for.
    if mistake.is_file() or mistake.with_name("stopped").is_file():
        return
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, math.ceil((os.cpu_count() or 1) / count)))
    try:
        function(*arguments)
    except Stopped as stopped:  # by all after the same step, and everything is saved
        draft = mistake.with_name(f"stopping.{os.environ['RANK']}")
        draft.write_text(f"{stopped.signal.value} {stopped}", encoding="utf-8")
        draft.replace(mistake.with_name("stopped"))
        sys.exit(128 + stopped.signal)  # a launcher that passed the signal on takes no results any more
    except UserError as error:
        mine = mistake.with_name(f"mistake.{os.environ['RANK']}")
        mine.write_text(str(error), encoding="utf-8")
        if not mistake.is_file():
            draft = mistake.with_name(f"draft.{os.environ['RANK']}")
            draft.write_text(str(error), encoding="utf-8")
            draft.replace(mistake)
        # Where all stop at it there is nothing to restart. Others, that wait for this one, must be stopped.
        for _ in range(100):
            if len(list(mistake.parent.glob("mistake.*"))) == count:
                return
            time.sleep(0.1)
        sys.exit(2)
