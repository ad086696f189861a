"""The loader of batches and its worker processes."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from fsaf.config.data import MULTIPLE
from fsaf.data.batch import Batch
from fsaf.data.sampler import Draw, ShapeBatches
from fsaf.data.samples import Collate, Images, Sample
from fsaf.errors import UserError

UNGUARDED = 94
"""Exit status of a process that would begin anew what its parent does."""


NO_GUARD = (
    "loader processes import the script again, which would begin anew there: put its calls under "
    "`if __name__ == '__main__':`, or set data.workers to 0 (docs/troubleshooting.md)"
)


class WorkerDied(UserError):
    """A worker process of the loader died; the message names the image it was reading."""


class Noting(Dataset[Any]):
    """Wraps ``Images``; records in shared memory which image each worker is reading."""

    def __init__(self, images: Images, workers: int) -> None:
        self.images = images
        self.reading = torch.full((workers,), -1).share_memory_()

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


class Loader(DataLoader[Batch]):
    """A DataLoader that raises the ``UserError`` of an image, and ``WorkerDied`` if a worker died.

    Workers return the error: PyTorch would replace the message of a raised one by the text of its traceback.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        if self.num_workers:
            check_main_guard()
        handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
        batches: Any = super().__iter__()
        if handler is not None and threading.current_thread() is threading.main_thread():
            # PyTorch's handler would raise anywhere in the program, even in the middle of a step.
            signal.signal(signal.SIGCHLD, handler)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if message := self._died(batches):
                    raise WorkerDied(message) from error
                raise
            if isinstance(batch, UserError):
                raise batch
            yield batch

    def _died(self, batches: Any) -> str | None:
        """Return the message about workers that died; None if none did."""
        if not isinstance(self.dataset, Noting):
            return None
        dead = {
            i: worker.exitcode for i, worker in enumerate(batches._workers) if worker.exitcode is not None
        }
        if not dead:
            return None
        if UNGUARDED in dead.values():
            return NO_GUARD
        how = ", ".join(
            signal.Signals(-code).name if code < 0 else f"status {code}" for code in dead.values()
        )
        items = [int(self.dataset.reading[i]) for i in dead]
        records = self.dataset.images.records.images
        what = ", ".join(str(records[item].path) for item in items if item >= 0)
        return (
            f"a loader process ended with {how} while reading {what or 'no image'} "
            "(out of memory? lower data.workers or data.batch_size)"
        )


def make_loader(
    images: Images,
    batch_size: int,
    *,
    workers: int,
    train: bool,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> tuple[Loader, ShapeBatches]:
    """Return a loader over a split, and the sampler that orders it.

    train: shuffle as configured and fill up short batches; otherwise read every image once, in order.
    """
    data = images.data
    sampler = ShapeBatches(
        images.shapes,
        batch_size,
        shuffle=train and data.shuffle,
        seed=seed,
        rank=rank,
        world=world,
        fill=train,
    )
    loader = Loader(
        Noting(images, workers) if workers else images,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=Collate(data.pad or MULTIPLE, data.max_boxes if train else None, data.antialias),
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # own generator: seeding workers must not advance the global one
    )
    return loader, sampler


def check_main_guard() -> None:
    """End this process if it is importing the script of its parent, which has no main guard.

    Python's start methods spawn and forkserver import the script in each process that they start.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)  # SystemExit would lose its status under forkserver


def _start_worker(_: int) -> None:
    import cv2

    # Threads are not inherited by a fork, and a worker handles one image at a time.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # not 1, which waits for threads that a fork does not inherit
    # Ctrl-C reaches all processes and stops training after the step, which still needs the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux: tells the sender
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_for_parent, daemon=True).start()


def _end_for_parent() -> None:
    """End this process at a SIGTERM from its parent; ignore one that is sent to all processes."""
    parent = multiprocessing.parent_process()
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != (parent and parent.pid):
        pass
    os._exit(0)
