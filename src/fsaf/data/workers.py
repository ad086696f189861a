"""Who reads the samples: the loader that hands out batches, and its processes."""

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


class WorkerDied(UserError):
    """A worker process of the loader is gone; the message says what it was reading."""


class Noting(Dataset[Any]):
    """``images`` that notes, in memory shared with the main process, what each worker is reading."""

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
    """Raises the ``UserError`` of an image as it is, and ``WorkerDied`` for a worker that is gone.

    An error raised in a worker would arrive with PyTorch's text of a traceback for its message.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
        batches: Any = super().__iter__()
        if handler is not None and threading.current_thread() is threading.main_thread():
            # PyTorch's would raise wherever the program is when a worker dies, as in the middle of a step.
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
        """What to say of workers that are gone; None where all are there, or there are none."""
        if not isinstance(self.dataset, Noting):
            return None
        dead = {
            i: worker.exitcode for i, worker in enumerate(batches._workers) if worker.exitcode is not None
        }
        if not dead:
            return None
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
    """A loader over a split and the sampler that orders it.

    train: draw as the config says and fill up short batches; otherwise every image once, in order.
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
        generator=torch.Generator(),  # it draws seeds for workers, which need none, at each start
    )
    return loader, sampler


def _start_worker(_: int) -> None:
    import cv2

    # A worker inherits no threads that hold locks; the work is one image at a time anyway.
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # not 1, which waits for threads that this process has not inherited
    # A signal to all processes asks to stop after this step, for which workers are needed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux tells who sent it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_for_parent, daemon=True).start()


def _end_for_parent() -> None:
    """End this process at a SIGTERM from the one that started it; that of others is for all processes."""
    parent = multiprocessing.parent_process()
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != (parent and parent.pid):
        pass
    os._exit(0)
