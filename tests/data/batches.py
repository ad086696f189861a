"""Pictures of a split, and the batches of a loader, for tests to compare."""

from collections.abc import Sequence
from pathlib import Path

import torch

from fsaf.config import DataConfig
from fsaf.data.batch import Batch
from fsaf.data.readers.coco import read_coco
from fsaf.data.records import Records
from fsaf.data.samples import Images
from fsaf.data.workers import make_loader
from synthetic import Picture, write_coco


def write_records(folder: Path, pictures: Sequence[Picture]) -> Records:
    """Write pictures as a training split, and read it."""
    return read_coco(write_coco(folder, pictures), folder / "images" / "train")


def read_batches(
    records: Records,
    data: DataConfig,
    *,
    workers: int = 0,
    train: bool = False,
    seed: int = 0,
    epoch: int = 0,
    start: int = 0,
) -> list[Batch]:
    """Return the batches of an epoch from batch ``start`` on; those of training are augmented."""
    images = Images(records, data, augment=train, seed=seed)
    loader, sampler = make_loader(images, data.batch_size, workers=workers, train=train, seed=seed)
    sampler.set_epoch(epoch, start)
    return list(loader)


def same(left: list[Batch], right: list[Batch]) -> bool:
    """Return True if all images, boxes and ids are equal."""
    return len(left) == len(right) and all(
        a.ids == b.ids
        and torch.equal(a.images, b.images)
        and all(torch.equal(x, y) for x, y in zip(a.boxes, b.boxes, strict=True))
        for a, b in zip(left, right, strict=True)
    )
