"""Measure how fast a recipe runs on this device, and how much of the device it uses.

Images, boxes and weights are random, because speed does not depend on them. Only the loader is measured on
the recipe's own data, if that is there.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from fsaf.config import Config, DataConfig
from fsaf.data.batch import Boxes
from fsaf.data.readers.splits import open_split
from fsaf.data.records import Classes, Records
from fsaf.data.samples import Images
from fsaf.data.shapes import fit_image
from fsaf.data.workers import make_loader
from fsaf.detection.detector import Detector
from fsaf.device import copy_images, is_accelerator, peak_memory, place, resolve_device
from fsaf.errors import UserError
from fsaf.measuring.flops import step_flops
from fsaf.measuring.inputs import largest_shape, random_batch, random_classes
from fsaf.measuring.machine import copy_rate, matrix_rate
from fsaf.measuring.timing import measure, summary
from fsaf.model.convolution import use_winograd
from fsaf.model.detector import FSAF
from fsaf.objective.objective import objective
from fsaf.training.graphs import WARM_UP as CAPTURE_AFTER
from fsaf.training.graphs import open_tools
from fsaf.training.precision import TYPES, Precision, fit_precision
from fsaf.training.prepare import for_training
from fsaf.training.session import make_step
from fsaf.training.start import start_run

CLASSES = 80
"""Classes of the network if the recipe's data is not there."""
BOXES = 20
"""Boxes of each random image."""


def benchmark(config: Config, *, seconds: float = 10.0, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure loader, training step and prediction of a recipe; return plain values for JSON.

    seconds: time for each part, which is repeated at least three times. say: prints what is being measured.
    Raises UserError for mistakes in the recipe, or if the device is not there.
    """
    device = resolve_device(config.device)
    config, chosen = fit_precision(config, device)
    for line in chosen:
        say(line)
    dtype = TYPES[config.train.precision]
    say(f"machine: matrix product ({config.train.precision}) and copy")
    found: dict[str, Any] = {
        "device": str(device),
        "precision": config.train.precision,
        "threads": torch.get_num_threads(),
        "matrix_flops": matrix_rate(device, dtype, min(1.0, seconds)),
        "copy_bytes": copy_rate(device, min(1.0, seconds)),
    }
    records, why = _records(config)
    if records is None:
        found["loader"] = {"skipped": why}
    else:
        say(f"loader: {len(records.images)} images, {config.data.workers} workers")
        found["loader"] = measure_loader(records, config.data, seconds)
    classes = records.classes if records else random_classes(CLASSES)
    shape = largest_shape(config.data)
    images = config.data.batch_size * config.train.accumulate
    say(f"training step: {images} images of {shape[0]} x {shape[1]}")
    found["train"] = measure_training(config, classes, shape, device, seconds, found["matrix_flops"])
    say("prediction: one image")
    found["predict"] = measure_prediction(config, classes, shape, device, seconds)
    return found


def measure_training(
    config: Config,
    classes: Classes,
    shape: tuple[int, int],
    device: torch.device,
    seconds: float,
    limit: float,
) -> dict[str, Any]:
    """Measure training steps on random images in memory, and the objective alone.

    limit: operations per second of the device (``matrix_rate``).
    """
    rows, parts, threads = config.data.batch_size, config.train.accumulate, torch.get_num_threads()
    size = rows * parts
    with tempfile.TemporaryDirectory() as folder:
        clean = replace(
            config, out=folder, init=None, resume=False, model=replace(config.model, weights="none")
        )
        run = start_run(clean, classes, device)
    run.model.train()
    step = make_step(run, open_tools(config, device), lambda _: None)
    images, boxes = random_batch(size, *shape, min(BOXES, config.data.max_boxes), len(classes))
    images, boxes = copy_images(images, device), boxes.to(device)
    if is_accelerator(device):
        torch.get_device_module(device).reset_peak_memory_stats(device)
    rate = 1e-9  # the weights stay as they are
    warm_up = 2 + CAPTURE_AFTER if config.train.graphs else 2
    times = summary(measure(lambda: step(images, boxes, rate), device, seconds, warm_up=warm_up))
    forward, both = (parts * flops for flops in step_flops(config, len(classes), rows, shape))
    one = Boxes(*(field[:rows] for field in boxes))
    with torch.no_grad(), run.precision.autocast():
        outputs = run.model(images[:rows], one.sizes)
    outputs = outputs.map(Tensor.requires_grad_)
    alone = measure(lambda: objective(outputs, one, config.objective).loss.backward(), device, seconds / 4)
    return {
        "batch": size,
        "shape": list(shape),
        "compiled": config.train.compile,
        "captured": config.train.graphs,
        "seconds": times,
        "images_per_second": size / times["median"],
        "objective_share": parts * summary(alone)["median"] / times["median"],
        "memory_bytes": peak_memory(device) if is_accelerator(device) else None,
        "flops": both,
        "forward_flops": forward,
        "utilisation": both / times["median"] / limit,
        "threads": threads,
    }


def measure_prediction(
    config: Config, classes: Classes, shape: tuple[int, int], device: torch.device, seconds: float
) -> dict[str, Any]:
    """Measure the latency from one padded image in memory to its detections."""
    model = place(FSAF(config.model, len(classes)).eval(), device)
    use_winograd(model, config.winograd)
    detector = Detector(model, classes, config)
    images, boxes = random_batch(1, *shape, 1, len(classes))
    precision = Precision(config.train, device)

    def predict() -> None:
        with precision.autocast():
            detector.detect(images, boxes.sizes)

    times = summary(measure(predict, device, seconds))
    return {"shape": list(shape), "seconds": times, "images_per_second": 1 / times["median"]}


def measure_loader(records: Records, data: DataConfig, seconds: float) -> dict[str, Any]:
    """Measure the images per second from files to batches, and the share of padding in the batches."""
    loader, sampler = make_loader(
        Images(records, data, augment=True), data.batch_size, workers=data.workers, train=True
    )
    sampler.set_epoch(0)
    batches = iter(loader)
    next(batches, None)  # starts the workers
    start, images = time.perf_counter(), 0
    for batch in islice(batches, 100_000):
        images += len(batch.ids)
        if time.perf_counter() - start > seconds:
            break
    taken = time.perf_counter() - start
    return {
        "images": images,
        "images_per_second": images / taken if images else None,
        "workers": data.workers,
        "padding_waste": padding_waste(records, data),
    }


def padding_waste(records: Records, data: DataConfig) -> float | None:
    """Return padding as a share of the resized images' pixels; None if shapes depend on the batch."""
    inside = padded = 0
    for record in records.images:
        (height, width), shape = fit_image((record.height, record.width), data)
        if shape is None:
            return None
        inside, padded = inside + height * width, padded + shape[0] * shape[1]
    return padded / inside - 1


def _records(config: Config) -> tuple[Records | None, str]:
    try:
        return for_training(open_split(config.data, "train"), config.data)[0], ""
    except UserError as error:
        return None, str(error)
