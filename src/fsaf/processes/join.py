"""Join the processes of a launcher to one group, each with a device of its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from fsaf.device import process_group_backend, resolve_device
from fsaf.errors import Stopped, UserError
from fsaf.processes.group import gather_all, launched, processes, restarts

_store: dist.Store | None = None
"""Key-value store of all processes; usable while others block in a collective."""


@contextmanager
def join(name: str) -> Iterator[torch.device]:
    """Join the group of the launcher's processes, if there is a launcher; yield the device of this process.

    name: as for ``resolve_device``, without a number if there are several processes: each takes the device
    of its ``LOCAL_RANK``. Raises UserError if this machine has too few devices.
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
            "--max-restarts on several machines: start each torchrun with "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, or restarted processes look for those that have ended"
        )
    store, rank, size = next(dist.rendezvous("env://"))
    # After a restart the launcher's store still holds the addresses of processes that have ended. Several
    # machines count their restarts separately, so that the count cannot separate starts there.
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
    except Stopped as error:  # all processes stop after the same step
        stopped = error
    gather_all(None)  # barrier: the process that hosts the store must not exit first
    dist.destroy_process_group()
    if stopped:
        raise stopped


def own_device(name: str, kind: str, local: int, count_all: int) -> torch.device:
    """Return the accelerator of process ``local`` of this machine, of ``count_all`` processes in all.

    name: as in the config. kind: the type of device. Raises UserError as ``join`` does.
    """
    if ":" in name and count_all > 1:
        raise UserError(f"device {name!r}: several processes need one device each; give {kind}")
    count = torch.get_device_module(kind).device_count()
    if local >= count:
        raise UserError(
            f"this machine has {count} {kind} devices, too few for {local + 1} or more processes; "
            "give fewer --devices"
        )
    return torch.device(name if ":" in name else f"{kind}:{local}")


def prints_error() -> bool:
    """Return True in exactly one process, the first to call, so that an error is printed once.

    Before the processes have joined: in the first process of each machine.
    """
    if not launched():
        return True
    if _store is None:
        return os.environ["LOCAL_RANK"] == "0"
    try:
        return _store.add("fsaf/mistakes", 1) == 1
    except RuntimeError:  # the process that hosts the store has ended, and has printed its error
        return False
