"""The number of images of a batch that an accelerator has memory for: ``data.batch_size`` = ``auto``."""

from dataclasses import replace

import torch

from fsaf.config import Config
from fsaf.config.data import MULTIPLE
from fsaf.data.batch import Boxes
from fsaf.data.records import Records
from fsaf.data.shapes import fit_image, padded_shape
from fsaf.device import free_cache, free_memory, is_accelerator, peak_memory, reset_peak_memory
from fsaf.processes import group
from fsaf.training.start import start_run
from fsaf.training.step import ForwardLoss, update

SHARE = 0.8
"""Share of the free memory that a step may take; the rest is for fragments and the back end's work space."""


def images_in_memory(config: Config, records: Records, device: torch.device) -> int | None:
    """Return how many images of the largest shape fit into the memory of ``device``, of each process.

    Steps of one and of two images are tried, on a network of its own; each further image takes as much as the
    second. None for a CPU, and for a device that does not report its memory. All processes call it and get
    the lowest number.
    """
    found = _try(config, records, device) if is_accelerator(device) else None
    known = [count for count in group.gather_all(found) if count is not None]
    return min(known) if known else None


def _try(config: Config, records: Records, device: torch.device) -> int | None:
    if not (free := free_memory(device)):
        return None
    alone = replace(
        config, init=None, resume=False, model=replace(config.model, weights="none"),
        train=replace(config.train, accumulate=1, graphs=False),
    )  # fmt: skip
    shape = _largest_shape(records, config)
    run = start_run(alone, records.classes, device)
    objective = replace(config.objective, normalise="process")  # other processes may run out of memory
    forward_loss = ForwardLoss(run.model.train(), objective, run.precision)
    peaks = []
    try:
        for count in (1, 1, 2):  # the first step allocates the state of the optimizer
            reset_peak_memory(device)
            images = torch.zeros(count, 3, *shape, dtype=torch.uint8, device=device)
            update(run, forward_loss, images, _boxes(count, config.data.max_boxes, shape).to(device))
            peaks.append(peak_memory(device))
    except torch.OutOfMemoryError:
        return max(1, len(peaks) - 1)
    finally:
        del run, forward_loss
        free_cache(device)
        reset_peak_memory(device)
    each = peaks[2] - peaks[1]
    if each <= 0:
        return None
    return max(1, int((SHARE * free - (peaks[1] - each)) / each))


def _largest_shape(records: Records, config: Config) -> tuple[int, int]:
    data = config.data
    fits = [fit_image((image.height, image.width), data) for image in records.images]
    shapes = [shape for _, shape in fits if shape]
    if shapes:
        return max(shapes, key=lambda shape: shape[0] * shape[1])
    return padded_shape([size for size, _ in fits], data.pad or MULTIPLE)  # if all were in one batch


def _boxes(images: int, boxes: int, shape: tuple[int, int]) -> Boxes:
    """Return as many boxes as a batch may hold."""
    height, width = shape
    yes = torch.ones(images, boxes, dtype=torch.bool)
    return Boxes(
        xyxy=torch.tensor([0.0, 0.0, width / 2, height / 2]).expand(images, boxes, 4).contiguous(),
        labels=torch.zeros(images, boxes, dtype=torch.int64),
        valid=yes,
        crowd=~yes,
        sizes=torch.tensor([shape] * images),
    )
