"""Find the boxes of a data set that no location can learn at the size that images are resized to."""

from collections.abc import Callable

import numpy as np

from fsaf.config import DataConfig, ObjectiveConfig
from fsaf.data.records import Records
from fsaf.data.shapes import fit_image
from fsaf.objective.reach import reachable_levels


def resize_boxes(
    records: Records, fit: Callable[[tuple[int, int]], tuple[int, int]]
) -> tuple[np.ndarray, ...]:
    """Return all boxes except crowd regions at the resized scale, and the image that each belongs to.

    fit: maps the (height, width) of an image to that of the resized image. Returns boxes (N, 4) float32 xyxy,
    sizes (N, 2) int64, (height, width) of the resized image, and image (N,), its position in
    ``records.images``.
    """
    counts = np.array([len(image.boxes) for image in records.images], np.int64)
    image = np.repeat(np.arange(len(counts)), counts)
    known: dict[tuple[int, int], tuple[int, int]] = {}
    before = [(each.height, each.width) for each in records.images]
    for size in before:
        if size not in known:
            known[size] = fit(size)
    sizes = np.array([known[size] for size in before], np.int64).reshape(-1, 2)
    scale = (sizes / np.array(before, np.float64).reshape(-1, 2)).astype(np.float32)
    boxes = _join([each.boxes for each in records.images], (0, 4), np.float32)
    real = ~_join([each.crowd for each in records.images], (0,), bool)
    boxes = boxes * np.tile(scale[:, ::-1], 2)[image]
    return boxes[real], sizes[image][real], image[real]


def levels_of(boxes: np.ndarray, sizes: np.ndarray, objective: ObjectiveConfig) -> np.ndarray:
    """Return (N, L) bool: some location of the level can learn the box. Arguments: see ``resize_boxes``."""
    return reachable_levels(boxes, sizes, objective)


def count_unreachable(records: Records, data: DataConfig, objective: ObjectiveConfig) -> tuple[int, int]:
    """Return how many boxes no location of any level can learn, resized as configured, and of how many."""
    boxes, sizes, _ = resize_boxes(records, lambda size: fit_image(size, data)[0])
    return int((~levels_of(boxes, sizes, objective).any(1)).sum()), len(boxes)


def _join(arrays: list[np.ndarray], empty: tuple[int, ...], kind: type) -> np.ndarray:
    return np.concatenate([np.zeros(empty, kind), *arrays])
