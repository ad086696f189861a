"""Read one image of a data set with its boxes, and collate several to a batch."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fsaf.config import DataConfig
from fsaf.config.data import MULTIPLE
from fsaf.data.augment import Change, change_boxes, crop, draw_change, finish, unchanged
from fsaf.data.batch import Batch, blank_images, pad_boxes
from fsaf.data.distort import Picture
from fsaf.data.pipeline import augment
from fsaf.data.records import ImageRecord, Records
from fsaf.data.sampler import Draw
from fsaf.data.shapes import fit_image, fit_shape, padded_shape
from fsaf.data.transforms import read_image, resize
from fsaf.errors import DataError, UserError


@dataclass(kw_only=True)
class Sample:
    """One image with its boxes as they will be in the batch; a blank row has an empty image."""

    image: Tensor
    """(3, H, W) uint8 RGB, cropped; resized already if that shrinks it."""
    change: Change
    """Size, flips and colours that the image is to get in the batch; the crop is done already."""
    boxes: np.ndarray
    """(n, 4) float32 xyxy in pixels of the resized image."""
    labels: np.ndarray
    """(n,) int64, 0..C-1."""
    crowd: np.ndarray
    """(n,) bool: ignore (crowd) regions."""
    draw: Draw
    """The row of a batch that this sample is for."""
    record: ImageRecord | None
    """None for a blank row."""
    original: tuple[int, int]
    """Height and width of the image file."""
    seconds: float
    """Time to read and transform the image."""


def read_record(image: ImageRecord, records: Records, data: DataConfig) -> Tensor:
    """Read an image of a split: (3, H, W) uint8 RGB, the picture that its boxes refer to, stored or rotated.

    Raises UserError as ``read_image`` does.
    """
    recorded = (image.height, image.width)
    accept = data.on_bad_image == "accept"
    return read_image(image.path, data.exif_rotation, data.max_pixels, recorded, records.turned, accept)


class Images(Dataset[Any]):
    """Reads images of a split and, for training, augments them."""

    def __init__(self, records: Records, data: DataConfig, *, augment: bool, seed: int = 0) -> None:
        self.records, self.data, self.augment, self.seed = records, data, augment, seed
        fits = [fit_image((record.height, record.width), data) for record in records.images]
        self.shapes = [shape for _, shape in fits]

    def __len__(self) -> int:
        return len(self.records.images)

    def __getitem__(self, draw: Draw) -> Sample | UserError:
        """Return the sample, or the error if the image cannot be read; ``Loader`` raises it."""
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
        picture = self._open(draw.item)
        original = picture.size
        if self.augment and any(self.data.chances.values()):
            rng = self._generator(draw)
            picture = augment(self._open, draw.item, len(self), draw.shape, rng, self.data)
            change = unchanged(picture.size, picture.size)
        else:
            picture, change = self._resize(picture, draw)
        return Sample(
            image=picture.image,
            change=change,
            boxes=picture.boxes,
            labels=picture.labels,
            crowd=picture.crowd,
            draw=draw,
            record=record,
            original=original,
            seconds=time.perf_counter() - start,
        )

    def _generator(self, draw: Draw) -> np.random.Generator:
        repetition = [draw.copy] if draw.copy else []
        return np.random.default_rng([self.seed, draw.epoch, draw.item, *repetition])

    def _open(self, item: int) -> Picture:
        """Read an image file with its boxes."""
        record = self.records.images[item]
        image = read_record(record, self.records, self.data)
        height, width = image.shape[1:]
        if self.augment and max(abs(height - record.height), abs(width - record.width)) > 1:
            raise DataError(
                f"{record.path}: {width} x {height} pixels, but {record.width} x {record.height} in "
                f"{self.records.source} (id {record.id}), so its boxes may be anywhere; `fsaf check --fix` "
                "writes annotations with the sizes of the files"
            )
        return Picture(image, record.boxes, record.labels, record.crowd)

    def _resize(self, picture: Picture, draw: Draw) -> tuple[Picture, Change]:
        """Return the cropped image with its final boxes, and the change that ``Collate`` completes."""
        # The batch's shape, even if the file has another size than recorded.
        size = fit_shape(picture.size, draw.shape, self.data)
        change = unchanged(picture.size, size)
        if self.augment:
            change = draw_change(self._generator(draw), picture.size, size, draw.shape, self.data)
        image = crop(picture.image, change)
        if image.shape[1] * image.shape[2] > change.size[0] * change.size[1]:
            # Shrink in the worker; otherwise a whole batch of full-size photographs is held in memory.
            image = resize(image, change.size, self.data.antialias)
        labelled = change_boxes(picture.boxes, picture.labels, picture.crowd, picture.size, change)
        return Picture(image, *labelled), change


@dataclass
class Collate:
    """Collates samples to a ``Batch``. Images are resized into the batch, so each pixel is written once."""

    pad: int
    """Round sides of batches without a fixed shape up to a multiple of this."""
    max_boxes: int | None
    """Boxes of an image; None takes as many as the batch needs."""
    antialias: bool = False
    """Smooth when shrinking."""

    def __call__(self, samples: list[Sample | UserError]) -> Batch | UserError:
        for sample in samples:
            if isinstance(sample, UserError):
                return sample
        return self._stack(samples)  # type: ignore[arg-type]

    def _stack(self, samples: list[Sample]) -> Batch:
        start = time.perf_counter()
        sizes = [sample.change.size for sample in samples]
        # All rows of one process may be blank; the network still needs an image of some size.
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
            finish(inside, sample.change)
        return Batch(
            images=images,
            boxes=boxes,
            ids=[sample.record.id for sample in samples if sample.record is not None],
            original_sizes=[sample.original for sample in samples if sample.record is not None],
            cut=cut,
            seconds=sum(sample.seconds for sample in samples) + time.perf_counter() - start,
        )
