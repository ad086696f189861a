"""The data set as tensors, and the loader that hands out batches."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from fsaf.config import DataConfig
from fsaf.data.augment import Change, change_boxes, change_color, draw_change, unchanged
from fsaf.data.batch import Batch, blank_images, pad_boxes
from fsaf.data.records import ImageRecord, Records
from fsaf.data.sampler import Draw, ShapeBatches
from fsaf.data.shapes import MULTIPLE, fit_image, padded_shape
from fsaf.data.transforms import read_image, resize
from fsaf.errors import UserError


@dataclass(kw_only=True)
class Sample:
    """One image and, as they will be in the batch, its boxes; a blank row has an empty image."""

    image: Tensor
    """(3, H, W) uint8 RGB, as in the file; a part that is to shrink has its new size already."""
    change: Change
    """Its size in the batch, and whether it is mirrored and recoloured; its region is taken already."""
    boxes: np.ndarray
    """(n, 4) float32 xyxy in pixels of the resized image."""
    labels: np.ndarray
    crowd: np.ndarray
    draw: Draw
    record: ImageRecord | None
    original: tuple[int, int]
    """Height and width in the file."""
    seconds: float


class Images(Dataset[Any]):
    """Reads one image of a split and, for training, draws how to change it."""

    def __init__(self, records: Records, data: DataConfig, *, augment: bool, seed: int = 0) -> None:
        self.records, self.data, self.augment, self.seed = records, data, augment, seed
        fits = [fit_image((record.height, record.width), data) for record in records.images]
        self.shapes = [shape for _, shape in fits]

    def __len__(self) -> int:
        return len(self.records.images)

    def __getitem__(self, draw: Draw) -> Sample | UserError:
        """The sample; the error of an image that cannot be read is returned, for ``Loader`` to raise."""
        try:
            return self._read(draw)
        except UserError as error:
            return error

    def _read(self, draw: Draw) -> Sample:
        start = time.perf_counter()
        if draw.item < 0:
            return Sample(
                image=torch.zeros(3, 0, 0, dtype=torch.uint8),
                change=unchanged((0, 0), (0, 0)),
                boxes=np.zeros((0, 4), np.float32),
                labels=np.zeros(0, np.int64),
                crowd=np.zeros(0, bool),
                draw=draw,
                record=None,
                original=(0, 0),
                seconds=0.0,
            )
        record = self.records.images[draw.item]
        image = read_image(record.path, self.data.exif_rotation, self.data.max_pixels)
        height, width = image.shape[1:]
        if self.augment and max(abs(height - record.height), abs(width - record.width)) > 1:
            raise UserError(
                f"{record.path}: {width} x {height} pixels, but {record.width} x {record.height} in "
                f"{self.records.source} (id {record.id}), so its boxes may be anywhere; `fsaf check --fix` "
                "writes annotations with the sizes of the files"
            )
        shapes = [draw.shape] if draw.shape else None  # the batch's, whatever size the file turns out to have
        size, _ = fit_image((height, width), replace(self.data, shapes=shapes))
        change = unchanged((height, width), size)
        if self.augment:
            rng = np.random.default_rng([self.seed, draw.epoch, draw.item])
            change = draw_change(rng, (height, width), size, draw.shape, self.data)
        top, left, *part = change.region
        image = image[:, top : top + part[0], left : left + part[1]]
        if part[0] * part[1] > change.size[0] * change.size[1]:
            # Or a batch of large photographs would lie in memory.
            image = resize(image, change.size, self.data.antialias)
        boxes, labels, crowd = change_boxes(
            record.boxes, record.labels, record.crowd, (height, width), change
        )
        return Sample(
            image=image,
            change=change,
            boxes=boxes,
            labels=labels,
            crowd=crowd,
            draw=draw,
            record=record,
            original=(height, width),
            seconds=time.perf_counter() - start,
        )


@dataclass
class Collate:
    """Samples to a ``Batch``; ``max_boxes`` None takes as many as the batch needs.

    Images are resized into the batch: each pixel is written once.
    """

    pad: int
    max_boxes: int | None
    antialias: bool = False

    def __call__(self, samples: list[Sample | UserError]) -> Batch | UserError:
        for sample in samples:
            if isinstance(sample, UserError):
                return sample
        return self._stack(samples)  # type: ignore[arg-type]

    def _stack(self, samples: list[Sample]) -> Batch:
        start = time.perf_counter()
        sizes = [sample.change.size for sample in samples]
        # All rows may be blank, in one of many processes; the network still needs some pixels.
        height, width = samples[0].draw.shape or padded_shape([*sizes, (MULTIPLE, MULTIPLE)], self.pad)
        boxes, cut = pad_boxes(
            [torch.from_numpy(sample.boxes) for sample in samples],
            [torch.from_numpy(sample.labels) for sample in samples],
            [torch.from_numpy(sample.crowd) for sample in samples],
            sizes,
            self.max_boxes or max(1, *(len(sample.boxes) for sample in samples), 1),
        )
        images = blank_images(len(samples), height, width)
        for canvas, sample, (h, w) in zip(images, samples, sizes, strict=True):
            inside = resize(sample.image, (h, w), self.antialias, out=canvas[:, :h, :w])
            mirror, color = sample.change.mirror, sample.change.color
            if any(mirror):
                axes = [axis for axis, mirrored in zip((2, 1), mirror, strict=True) if mirrored]
                inside.copy_(inside.flip(axes))
            if color:
                inside.copy_(change_color(inside, color))
        return Batch(
            images=images,
            boxes=boxes,
            ids=[sample.record.id for sample in samples if sample.record is not None],
            original_sizes=[sample.original for sample in samples if sample.record is not None],
            cut=cut,
            seconds=sum(sample.seconds for sample in samples) + time.perf_counter() - start,
        )


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
