"""How fast a recipe runs on the device at hand, and how much of the device it uses.

Images and boxes are random and lie in memory, weights are random: speed depends on neither. Only the loader
is measured on the recipe's own data, where that is there.
"""

import functools
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fsaf.config import Config, DataConfig
from fsaf.config.data import MULTIPLE
from fsaf.data.batch import Boxes
from fsaf.data.readers.splits import open_split
from fsaf.data.records import Classes, Records
from fsaf.data.samples import Images
from fsaf.data.shapes import fit_image, padded_shape
from fsaf.data.workers import make_loader
from fsaf.detection.detector import Detector
from fsaf.device import copy_images, is_accelerator, peak_memory, place, resolve_device
from fsaf.errors import UserError
from fsaf.model.convolution import use_winograd
from fsaf.model.detector import FSAF
from fsaf.objective.objective import objective
from fsaf.text import columns
from fsaf.training.graphs import WARM_UP as CAPTURE_AFTER
from fsaf.training.graphs import CapturedStep, open_tools
from fsaf.training.precision import TYPES, Precision
from fsaf.training.prepare import for_training
from fsaf.training.start import start_run
from fsaf.training.step import ForwardLoss, compile_forward_loss, train_step

CLASSES = 80
"""Classes of the network where the recipe's data is not there to tell."""
BOXES = 20
"""Boxes of each random image."""


def benchmark(config: Config, *, seconds: float = 10.0, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Measure loader, training step and prediction of a recipe; returns plain values for JSON.

    seconds: how long each part is repeated, at least three times. say: told what is being measured.
    Raises UserError for mistakes in the recipe, or where the device is not there.
    """
    device = resolve_device(config.device)
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


def random_batch(
    batch: int, height: int, width: int, boxes: int, classes: int, seed: int = 0
) -> tuple[Tensor, Boxes]:
    """Images (B, 3, H, W) uint8 that fill the batch, and ``boxes`` boxes of 8 pixels and more in each."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, height, width, 3), generator=random, dtype=torch.uint8)
    size = torch.tensor([width, height], dtype=torch.float32)
    # As in photographs there are more small boxes than large ones.
    sides = 8 + torch.rand(batch, boxes, 2, generator=random) ** 3 * (size - 8)
    corner = torch.rand(batch, boxes, 2, generator=random) * (size - sides)
    real = torch.ones(batch, boxes, dtype=torch.bool)
    return images.permute(0, 3, 1, 2), Boxes(
        torch.cat([corner, corner + sides], 2),
        torch.randint(0, classes, (batch, boxes), generator=random),
        real,
        torch.zeros_like(real),
        torch.tensor([[height, width]] * batch),
    )


def random_classes(count: int) -> Classes:
    """``count`` classes without meaning."""
    return Classes(names=tuple(f"class {i}" for i in range(count)), ids=tuple(range(1, count + 1)))


def largest_shape(data: DataConfig) -> tuple[int, int]:
    """The batch shape of most pixels that the recipe has."""
    if data.pad is None and data.shapes:
        return max(data.shapes, key=lambda shape: shape[0] * shape[1])
    return padded_shape([(data.short_side, data.long_side)], data.pad or MULTIPLE)


def measure(
    call: Callable[[], Any], device: torch.device, seconds: float, least: int = 3, warm_up: int = 2
) -> list[float]:
    """Seconds of each call, done again and again for ``seconds``; the first ones do not count."""
    for _ in range(warm_up):
        call()
    wait(device)
    times: list[float] = []
    while len(times) < least or (sum(times) < seconds and len(times) < 1000):
        start = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - start)
    return times


def wait(device: torch.device) -> None:
    """Until an accelerator has done what it was given."""
    if is_accelerator(device):
        torch.accelerator.synchronize(device)


def summary(times: list[float]) -> dict[str, float]:
    """Median, quartiles and tails of times, in seconds."""
    row = torch.tensor(sorted(times), dtype=torch.float64)
    points = {"median": 0.5, "p25": 0.25, "p75": 0.75, "p90": 0.9, "p99": 0.99}
    named = {name: float(torch.quantile(row, share)) for name, share in points.items()}
    return {**named, "least": float(row[0]), "count": len(times)}


def matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Floating-point operations a second of a large matrix product: what the device reaches at most."""
    side = 1024
    while True:
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        best = min(measure(lambda: left @ right, device, seconds, 5))  # noqa: B023
        # A product too short to fill the device is tried again at twice the side; a slow device stops.
        if best > 0.002 or side == 8192:
            return 2 * side**3 / best
        side *= 2


def copy_rate(device: torch.device, seconds: float = 1.0) -> float:
    """Bytes a second that a copy within the device's memory reads and writes."""
    source = torch.zeros(2**28 if is_accelerator(device) else 2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / min(measure(lambda: target.copy_(source), device, seconds, 5))


def step_flops(config: Config, classes: int, batch: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Floating-point operations of the network for ``batch`` images: forward, and forward with backward.

    A multiplication with its addition counts as two. Counted on the device ``meta``, which computes nothing.
    """
    with torch.device("meta"):
        model = FSAF(config.model, classes).train()
        images = torch.empty(batch, 3, *shape, dtype=torch.uint8)
        # PyTorch's own count of the backward pass overlooks groups.
        counts = {torch.ops.aten.convolution_backward: _conv_backward_flops}
        with FlopCounterMode(display=False, custom_mapping=counts) as counter:
            outputs = model(images)
            forward = counter.get_total_flops()
            torch.stack([x.sum() for x in outputs.tensors()]).sum().backward()
        return forward, counter.get_total_flops()


def _conv_backward_flops(
    gradient_shape: Sequence[int], _: Sequence[int], weight_shape: Sequence[int], *rest: Any, **__: Any
) -> int:
    """Each gradient asked for takes what the forward pass took; ``rest`` ends with which those are."""
    return 2 * math.prod(gradient_shape) * math.prod(weight_shape[1:]) * sum(rest[-1][:2])


def measure_training(
    config: Config,
    classes: Classes,
    shape: tuple[int, int],
    device: torch.device,
    seconds: float,
    limit: float,
) -> dict[str, Any]:
    """Training steps on random images in memory, and the objective alone. limit: FLOP/s of the device."""
    rows, parts, threads = config.data.batch_size, config.train.accumulate, torch.get_num_threads()
    size = rows * parts
    with tempfile.TemporaryDirectory() as folder:
        clean = replace(
            config, out=folder, init=None, resume=False, model=replace(config.model, weights="none")
        )
        run = start_run(clean, classes, device)
    run.model.train()
    forward_loss = ForwardLoss(run.model, config.objective, run.precision)
    if config.train.compile:
        compile_forward_loss(forward_loss, config.train.compile_backend)
    images, boxes = random_batch(size, *shape, min(BOXES, config.data.max_boxes), len(classes))
    images, boxes = copy_images(images, device), boxes.to(device)
    step = functools.partial(train_step, run, forward_loss)
    if config.train.graphs:
        step = CapturedStep(run, forward_loss, open_tools(device), lambda _: None)  # type: ignore[assignment]
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
    """Latency from one padded image in memory to its detections."""
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
    """Images a second from files to batches, and what share of the batches' pixels is padding."""
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
    """Padding as a share of the resized images' pixels; None where shapes depend on the batch."""
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


def format_benchmark(found: dict[str, Any]) -> str:
    """The measurements as lines of text, names left, values right of them."""
    train, predict, loader = found["train"], found["predict"], found["loader"]
    how = ", compiled" * train["compiled"] + ", captured as one graph" * train["captured"]
    rows = [
        ("device", f"{found['device']}, {found['threads']} threads, {found['precision']}"),
        ("matrix product", f"{found['matrix_flops'] / 1e12:.3g} TFLOP/s"),
        ("copy", f"{found['copy_bytes'] / 1e9:.3g} GB/s"),
        ("", ""),
        ("training step", _times(train["seconds"], train["batch"], train["shape"])),
        ("", f"{train['images_per_second']:.3g} img/s{how}"),
        ("objective", f"{train['objective_share']:.1%} of the step"),
        (
            "network",
            f"{train['flops'] / 1e9:,.0f} GFLOP a step, {train['utilisation']:.1%} of the matrix product",
        ),
        (
            "memory",
            f"{train['memory_bytes'] / 2**30:.2f} GiB" if train["memory_bytes"] else "not told for a CPU",
        ),
        ("", ""),
        ("prediction", _times(predict["seconds"], 1, predict["shape"])),
        ("", f"{predict['images_per_second']:.3g} img/s, suppression included"),
        ("", ""),
    ]
    if "skipped" in loader:
        rows.append(("loader", f"not measured: {loader['skipped']}"))
    else:
        speed = loader["images_per_second"]
        rows.append(
            ("loader", f"{speed:.3g} img/s, {loader['workers']} workers" if speed else "too few images")
        )
        waste = loader["padding_waste"]
        rows.append(
            ("padding", "depends on the batch" if waste is None else f"{waste:.1%} of the images' pixels")
        )
    return columns(rows, "l")


def _times(times: dict[str, float], batch: int, shape: list[int]) -> str:
    digits = max(0, 2 - math.floor(math.log10(times["median"] * 1000)))
    median, low, high, tail = (f"{times[key] * 1000:.{digits}f}" for key in ("median", "p25", "p75", "p99"))
    images = "1 image" if batch == 1 else f"{batch} images"
    return f"{median} ms ({low} to {high}, 99% under {tail}) for {images} of {shape[0]} x {shape[1]}"
