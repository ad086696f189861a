"""A worker process of the loader: which image it reads, which signals it ignores, how it reports a fault."""

import multiprocessing.queues
import os
import signal
import sys
import threading
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import Dataset, get_worker_info

from fsaf.data.sampler import Draw
from fsaf.data.samples import Images, Sample
from fsaf.errors import UserError
from fsaf.processes.stop import SIGNALS

CANNOT_SEND = 74
"""Exit status of a worker that cannot hand over a batch (EX_IOERR of sysexits.h)."""
FAULT = 200
"""Bytes kept of its error message."""


class Noting(Dataset[Any]):
    """Wraps ``Images``; records in shared memory which image each worker is reading, and its last error."""

    def __init__(self, images: Images, workers: int) -> None:
        self.images = images
        self.reading = torch.full((workers,), -1).share_memory_()
        self.faults = torch.zeros(workers, FAULT, dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: Draw) -> Sample | UserError:
        info = get_worker_info()
        assert info is not None
        worker = info.id
        self.reading[worker] = draw.item
        sample = self.images[draw]
        self.reading[worker] = -1
        return sample

    def image(self, worker: int) -> str | None:
        """Return the path of the image that a worker is reading; None if it reads none."""
        item = int(self.reading[worker])
        return str(self.images.records.images[item].path) if item >= 0 else None

    def fault(self, worker: int) -> str:
        """Return the error that ended a worker, as far as it could be noted."""
        return bytes(self.faults[worker].tolist()).rstrip(b"\0").decode(errors="replace")


def start_worker(_: int) -> None:
    """Prepare a worker process; called in it before it reads."""
    import cv2

    # Threads are not inherited by a fork, and a worker handles one image at a time.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # not 1, which waits for threads that a fork does not inherit
    # By default the queue prints the traceback and drops the batch, and the main process waits for ever.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_cannot_send)  # type: ignore[attr-defined]
    sys.excepthook = _without_sharing
    # These reach all processes and stop training after the step, which still needs the workers.
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux: tells the sender
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_for_parent, daemon=True).start()
    # After the mask, which threads inherit: SIGTERM ends a process with one thread that does not block it.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _cannot_send(error: Exception, batch: object) -> None:
    """Note the error for the main process and end this worker; runs in the thread that sends batches."""
    info = get_worker_info()
    assert info is not None and isinstance(info.dataset, Noting)
    text = str(error).encode()[:FAULT]
    info.dataset.faults[info.id, : len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    os._exit(CANNOT_SEND)


def _without_sharing(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report an error that nothing caught, unless memory could not be handed over: the main process does."""
    if not isinstance(error, (OSError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def _end_with_parent() -> None:
    """End this process when its parent has ended, also by SIGKILL.

    PyTorch compares the id of the parent, which is the fork server's under the start method ``forkserver``.
    """
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def _end_for_parent() -> None:
    """End this process at a SIGTERM from its parent; ignore one that is sent to all processes."""
    parent = multiprocessing.parent_process()
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != (parent and parent.pid):
        pass
    os._exit(0)
