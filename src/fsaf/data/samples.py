"""One image of a data set as tensors, and several of them as a batch."""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fsaf.config import DataConfig
from fsaf.config.data import MULTIPLE
from fsaf.data.augment import Change, change_boxes, change_color, draw_change, unchanged
from fsaf.data.batch import Batch, blank_images, pad_boxes
from fsaf.data.records import ImageRecord, Records
from fsaf.data.sampler import Draw
from fsaf.data.shapes import fit_image, padded_shape
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
