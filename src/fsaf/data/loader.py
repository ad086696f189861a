"""The data set as tensors, and the loader that hands out batches."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fsaf.config import DataConfig
from fsaf.data.batch import Batch, pad_boxes, stack_images
from fsaf.data.records import ImageRecord, Records
from fsaf.data.sampler import Draw, ShapeBatches
from fsaf.data.shapes import MULTIPLE, fit_image, padded_shape
from fsaf.data.transforms import flip_horizontal, flip_vertical, read_image, resize
from fsaf.errors import UserError


@dataclass(kw_only=True)
class Sample:
    """One image, resized, with its boxes; a blank row has an empty image."""

    image: Tensor
    """(3, h, w) uint8 RGB."""
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
    """Reads, resizes and, for training, flips one image of a split."""

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
                boxes=np.zeros((0, 4), np.float32),
                labels=np.zeros(0, np.int64),
                crowd=np.zeros(0, bool),
                draw=draw,
                record=None,
                original=(0, 0),
                seconds=0.0,
            )
        record = self.records.images[draw.item]
        image = read_image(record.path, self.data.exif_rotation)
        height, width = image.shape[1:]
        shapes = [draw.shape] if draw.shape else None  # the batch's, whatever size the file turns out to have
        size, _ = fit_image((height, width), replace(self.data, shapes=shapes))
        image = resize(image, size, self.data.antialias)
        scale = np.array([size[1] / width, size[0] / height] * 2, np.float32)
        boxes = record.boxes * scale
        if self.augment:
            rng = np.random.default_rng([self.seed, draw.epoch, draw.item])
            if rng.random() < self.data.flip:
                image, boxes = flip_horizontal(image, boxes)
            if rng.random() < self.data.flip_vertical:
                image, boxes = flip_vertical(image, boxes)
        return Sample(
            image=image,
            boxes=boxes.astype(np.float32),
            labels=record.labels,
            crowd=record.crowd,
            draw=draw,
            record=record,
            original=(height, width),
            seconds=time.perf_counter() - start,
        )


@dataclass
class Collate:
    """Samples to a ``Batch``; ``max_boxes`` None takes as many as the batch needs."""

    pad: int
    max_boxes: int | None

    def __call__(self, samples: list[Sample | UserError]) -> Batch | UserError:
        for sample in samples:
            if isinstance(sample, UserError):
                return sample
        return self._stack(samples)  # type: ignore[arg-type]

    def _stack(self, samples: list[Sample]) -> Batch:
        sizes = [(sample.image.shape[1], sample.image.shape[2]) for sample in samples]
        # All rows may be blank, in one of many processes; the network still needs some pixels.
        height, width = samples[0].draw.shape or padded_shape([*sizes, (MULTIPLE, MULTIPLE)], self.pad)
        boxes, cut = pad_boxes(
            [torch.from_numpy(sample.boxes) for sample in samples],
            [torch.from_numpy(sample.labels) for sample in samples],
            [torch.from_numpy(sample.crowd) for sample in samples],
            sizes,
            self.max_boxes or max(1, *(len(sample.boxes) for sample in samples), 1),
        )
        return Batch(
            images=stack_images([sample.image for sample in samples], height, width),
            boxes=boxes,
            ids=[sample.record.id for sample in samples if sample.record is not None],
            original_sizes=[sample.original for sample in samples if sample.record is not None],
            cut=cut,
            seconds=sum(sample.seconds for sample in samples),
        )


class Loader(DataLoader[Batch]):
    """Raises the ``UserError`` of an image as it is.

    One raised in a worker would arrive with PyTorch's text of a traceback for its message.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch


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
        images,
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=Collate(data.pad or MULTIPLE, data.max_boxes if train else None),
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        # A worker inherits no threads that hold locks; the work is one image at a time anyway.
        worker_init_fn=_one_thread,
    )
    return loader, sampler


def _one_thread(_: int) -> None:
    import cv2

    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # not 1, which waits for threads that this process has not inherited
