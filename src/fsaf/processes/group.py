"""The group of processes: which one this is, and what the processes exchange.

Every function also works in a single process. There it does nothing, or returns its argument.
"""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fsaf.errors import UserError
from fsaf.lock import FolderLock

T = TypeVar("T")


# -- this process ---------------------------------------------------------------------------------------


def launched() -> bool:
    """Return True if torchrun or ``launch`` started this process."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def restarts() -> int:
    """Return how often the launcher has restarted the processes."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))


def launch_id() -> str:
    """Return the launcher's name for this launch (``torchrun --rdzv-id``), the same after a restart.

    Empty without a launcher.
    """
    return os.environ.get("TORCHELASTIC_RUN_ID", "")


def processes() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_main() -> bool:
    """Return True in the process that prints and writes files, also outside of ``join``."""
    return rank() == 0 if dist.is_initialized() or not launched() else os.environ["RANK"] == "0"


def each(value: float | str, form: str = "") -> str:
    """Return `` (2 on each of 4)`` to follow a total in a message; an empty text for one process."""
    return f" ({value:{form}} on each of {processes()})" if processes() > 1 else ""


# -- exchange ---------------------------------------------------------------------------------------------


def gather_all(value: T) -> list[T]:
    """Return the values of all processes in order of rank. Wait for all."""
    if processes() == 1:
        return [value]
    values: list[Any] = [None] * processes()
    dist.all_gather_object(values, value)
    return values


def gather(value: T) -> list[T]:
    """Return the values of all processes on the main one, an empty list on the others. Wait for all."""
    if processes() == 1:
        return [value]
    values: list[Any] | None = [None] * processes() if is_main() else None
    dist.gather_object(value, values)
    return values or []


def from_main(make: Callable[[], T]) -> T:
    """Call ``make`` on the main process; return its result, or raise its UserError, on all processes."""
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


@contextmanager
def locked(folder: Path, verb: str) -> Iterator[FolderLock]:
    """Lock a folder that the main process writes; raise the WriteError of ``FolderLock`` on all processes."""
    lock = FolderLock(folder, verb)
    from_main(lock.acquire)
    try:
        yield lock
    finally:
        lock.release()


def mean_over_processes(values: Tensor) -> Tensor:
    """Return the mean of a tensor over the processes, as a new tensor, without waiting for the device."""
    if processes() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / processes()


@torch.no_grad()
def copy_from_main(module: nn.Module) -> None:
    """Overwrite weights and buffers by those of the main process."""
    if processes() == 1:
        return
    for value in module.state_dict().values():
        received = value.contiguous()  # collectives need contiguous memory; convolutions are channels last
        dist.broadcast(received, 0)
        value.copy_(received)


def averaging(module: nn.Module, device: torch.device, buffers: bool) -> nn.Module:
    """Return ``module``, wrapped so that its backward pass averages gradients over the processes.

    buffers: copy the buffers of the main process before each step, for batch norm that learns its statistics.
    """
    if not dist.is_initialized():
        return module
    wrap = nn.parallel.DistributedDataParallel
    new = "forward_sync_buffers" in inspect.signature(wrap).parameters  # the other is deprecated in 2.15
    options: dict[str, Any] = {"forward_sync_buffers" if new else "broadcast_buffers": buffers}
    devices = None if device.type == "cpu" else [device]
    return wrap(module, device_ids=devices, gradient_as_bucket_view=True, **options)


def without_averaging(module: Any) -> AbstractContextManager[None]:
    """Return a context in which backward passes of an ``averaging`` module do not average gradients."""
    return module.no_sync() if isinstance(module, nn.parallel.DistributedDataParallel) else nullcontext()
