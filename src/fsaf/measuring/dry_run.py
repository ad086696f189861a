"""What a training would do and take, found out without writing anything: ``fsaf train --dry-run``.

Data, run folder, weights and device are checked as training checks them. Then the largest batch of the first
epoch is read and trained on a few times; time of other shapes goes by their pixels.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median

from fsaf.checking.text import describe
from fsaf.config import Config, to_dict
from fsaf.config.data import MULTIPLE
from fsaf.data.batch import Batch
from fsaf.data.records import Records
from fsaf.data.sampler import ShapeBatches
from fsaf.data.samples import Images
from fsaf.data.shapes import fit_image, padded_shape
from fsaf.data.workers import make_loader
from fsaf.detection.detector import Detector
from fsaf.device import is_accelerator, resolve_device, total_memory
from fsaf.errors import UserError
from fsaf.measuring.benchmark import measure, step_flops, wait
from fsaf.processes import group
from fsaf.recipe import to_yaml
from fsaf.text import columns, printable
from fsaf.training.graphs import WARM_UP, open_tools
from fsaf.training.prepare import open_for_training
from fsaf.training.run import Run
from fsaf.training.start import start_run
from fsaf.training.trainer import Step, make_step, memory_gb

SECONDS = 2.0
"""How long steps are repeated after the first ones; a step that takes longer is measured once."""


@dataclass(kw_only=True)
class Batches:
    """The batches of the first epoch, as one process sees them."""

    steps: Counter[tuple[int, int]]
    """How many there are of each shape (height, width)."""
    largest: int
    """Which is the first of the largest shape."""
    padding: float
    """Padding as a share of the images' pixels."""

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of most pixels."""
        return max(self.steps, key=_pixels)

    @property
    def weight(self) -> float:
        """Steps of an epoch, each counted by its pixels in those of the largest shape."""
        return sum(count * _pixels(shape) for shape, count in self.steps.items()) / _pixels(self.shape)


@dataclass(kw_only=True)
class Trial:
    """Some steps on the largest batch."""

    loss: float
    """Of the first step."""
    first: float
    """Seconds of the first steps, with compiling and capturing."""
    step: list[float]
    """Seconds of each step after them."""
    read: float
    """Seconds to read an image, in one process."""
    detect: float
    """Seconds to detect on an image."""
    memory_gb: float
    """Peak: of the accelerator, or of this process on a CPU."""


@dataclass(kw_only=True)
class DryRun:
    """Everything that ``fsaf train --dry-run`` shows."""

    run: Run
    """As training would start it, and some steps later."""
    records: Records
    validation: Records | None
    notes: list[str]
    devices: int
    batches: Batches
    start: int
    """The step that training starts from: 0, or that of the checkpoint..."""
    end: int
    """...and the one that it ends at."""
    flops: tuple[int, int]
    """Of a step of the largest shape: forward, and forward with backward."""
    trial: Trial

    @property
    def epoch_seconds(self) -> float:
        """Steps of an epoch, or reading its images where loader processes take longer than that."""
        steps, workers = median(self.trial.step) * self.batches.weight, self.run.config.data.workers
        read = self.trial.read * len(self.records.images) / self.devices
        return max(steps, read / workers) if workers else steps + read

    @property
    def evaluation_seconds(self) -> float:
        """One evaluation, without scoring."""
        images = len(self.validation.images) if self.validation else 0
        read = self.trial.read / max(1, self.run.config.data.workers)
        return images / self.devices * (self.trial.detect + read)

    @property
    def evaluations(self) -> int:
        """How often training would evaluate."""
        every, per_epoch = self.run.config.train.evaluate_every, self.batches.steps.total()
        if not every or self.validation is None or self.start >= self.end:
            return 0
        ends = {
            step for step in range(every * per_epoch, self.end + 1, every * per_epoch) if step > self.start
        }
        return len(ends | {self.end})

    @property
    def seconds(self) -> float:
        """The whole training, from where it starts."""
        epochs = max(0, self.end - self.start) / self.batches.steps.total()
        return self.trial.first + epochs * self.epoch_seconds + self.evaluations * self.evaluation_seconds


def dry_run(config: Config, devices: int = 1, say: Callable[[str], None] = lambda _: None) -> DryRun:
    """Do what training does up to its first steps, in this process alone, and write nothing.

    devices: processes that training would have. say: told what is being done. Raises UserError as training
    would, and where the run folder could not be written.
    """
    if group.launched():
        raise UserError("--dry-run: is one process; leave torchrun out, and say how many with --devices N")
    device = resolve_device(config.device)
    if is_accelerator(device) and devices > 1:
        group.own_device(config.device, device.type, devices - 1, devices)
    say("reading annotations")
    records, validation, notes = open_for_training(config)
    tools = open_tools(device, devices) if config.train.graphs else None
    run = start_run(config, records.classes, device)
    _check_writable(run.out)
    rows = config.data.batch_size * config.train.accumulate
    images = Images(records, config.data, augment=True, seed=config.train.seed)
    loader, sampler = make_loader(images, rows, workers=0, train=True, seed=config.train.seed, world=devices)
    batches, start, all_steps = count_batches(images, sampler), run.step, config.train.epochs * sampler.steps
    height, width = batches.shape
    say(f"trying steps of {rows} images of {height} x {width} on {device}")
    sampler.set_epoch(0, batches.largest)
    batch = next(iter(loader))
    parts = config.train.accumulate
    forward, both = step_flops(config, len(records.classes), config.data.batch_size, (height, width))
    return DryRun(
        run=run,
        records=records,
        validation=validation,
        notes=run.notes + [f"note: {note}" for note in notes],
        devices=devices,
        batches=batches,
        start=start,
        end=min(all_steps, config.train.max_steps or all_steps),
        flops=(forward * parts, both * parts),
        trial=_try(run, batch, make_step(run, device, tools, say)),
    )


def count_batches(images: Images, sampler: ShapeBatches) -> Batches:
    """The batches of the first epoch, told from the sizes of images alone, before ``data.scale``."""
    sampler.set_epoch(0)
    data = images.data
    steps: Counter[tuple[int, int]] = Counter()
    largest, inside, padded = 0, 0, 0
    shape_of_largest = (0, 0)
    for number, draws in enumerate(sampler):
        records = [images.records.images[draw.item] for draw in draws if draw.item >= 0]
        sizes = [fit_image((record.height, record.width), data)[0] for record in records]
        shape = draws[0].shape or padded_shape([*sizes, (MULTIPLE, MULTIPLE)], data.pad or MULTIPLE)
        steps[shape] += 1
        inside, padded = inside + sum(map(_pixels, sizes)), padded + _pixels(shape) * len(sizes)
        if _pixels(shape) > _pixels(shape_of_largest):
            largest, shape_of_largest = number, shape
    return Batches(steps=steps, largest=largest, padding=padded / inside - 1)


def _try(run: Run, batch: Batch, step: Step) -> Trial:
    """Train on ``batch`` a few times, at a rate of next to nothing, and detect on it once."""
    config, device = run.config, run.model.mean.device
    run.model.train()
    images, boxes = batch.images.to(device), batch.boxes.to(device)
    started = time.perf_counter()
    for _ in range(1 + (WARM_UP if config.train.graphs else 0)):
        terms, _ = step(images, boxes, 1e-9)
    wait(device)
    first = time.perf_counter() - started
    times = measure(lambda: step(images, boxes, 1e-9), device, SECONDS, least=1, warm_up=0)
    loss, memory = terms.loss.item(), memory_gb(device)
    detector = Detector(run.model.eval(), run.classes, config)
    rows = slice(0, config.data.batch_size)
    detect = measure(lambda: detector.detect(images[rows], boxes.sizes[rows]), device, 0, least=1, warm_up=1)
    return Trial(
        loss=loss,
        first=first,
        step=times,
        read=batch.seconds / max(1, len(batch.ids)),
        detect=detect[0] / config.data.batch_size,
        memory_gb=memory,
    )


def _pixels(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]


def _check_writable(out: Path) -> None:
    folder = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{out}: cannot be written (no permission in {folder}); give another --out FOLDER")


def format_dry_run(found: DryRun) -> str:
    """The config, the data, batches, network and estimate as plain text."""
    config = found.run.config
    splits = {"train": found.records} | ({"val": found.validation} if found.validation else {})
    parts = {
        "config": to_yaml(to_dict(config)).rstrip(),
        "data": describe(splits, config.data, config.objective),
        "": "\n".join(printable(note) for note in found.notes),
        "batches": columns(_batch_rows(found), "l"),
        "network": columns(_network_rows(found), "l"),
        "estimate": columns(_estimate_rows(found), "l"),
    }
    texts = [f"-- {name} --\n{text}" if name else text for name, text in parts.items() if text]
    return "\n\n".join([*texts, "Nothing was written. The same command without --dry-run trains."])


def _batch_rows(found: DryRun) -> list[tuple[str, str]]:
    config, batches = found.run.config, found.batches
    total = config.data.batch_size * config.train.accumulate * found.devices
    blank = total * batches.steps.total() - len(found.records.images)
    cut = sum(max(0, len(image.boxes) - config.data.max_boxes) for image in found.records.images)
    of = f" ({found.devices} processes of {total // found.devices})" if found.devices > 1 else ""
    shapes = sorted(batches.steps.items(), key=lambda item: -_pixels(item[0]))
    shown = [(f"{height} x {width}", f"{count:,} an epoch") for (height, width), count in shapes[:20]]
    if len(shapes) > len(shown):
        shown.append((f"{len(shapes) - len(shown)} other", f"{sum(c for _, c in shapes[20:]):,} an epoch"))
    return [
        ("images a step", f"{total}{of}"),
        ("steps", f"{batches.steps.total():,} an epoch, {found.start:,} to {found.end:,} in all"),
        *shown,
        ("padding", f"{batches.padding:.1%} of the images' pixels"),
        ("blank rows", f"{blank:,} an epoch, to fill up each shape's last batch"),
        ("boxes cut", f"{cut:,} an epoch beyond data.max_boxes = {config.data.max_boxes} of an image"),
    ]


def _network_rows(found: DryRun) -> list[tuple[str, str]]:
    parameters = list(found.run.model.parameters())
    trained = sum(weight.numel() for weight in parameters if weight.requires_grad)
    forward, both = found.flops
    height, width = found.batches.shape
    return [
        ("backbone", found.run.config.model.backbone),
        ("weights", f"{sum(w.numel() for w in parameters) / 1e6:.2f} M, {trained / 1e6:.2f} M of them train"),
        (
            "computation",
            f"{both / 1e9:,.1f} GFLOP a step of {height} x {width} ({forward / 1e9:,.1f} forward)",
        ),
    ]


def _estimate_rows(found: DryRun) -> list[tuple[str, str]]:
    trial, config, device = found.trial, found.run.config, found.run.model.mean.device
    times = len(trial.step)
    how = f"median of {times}" if times > 1 else "measured once"
    whole = total_memory(device) if is_accelerator(device) else None
    of = f"of {whole / 1e9:.1f} GB of {device}" if whole else f"of {device}" if is_accelerator(device) else ""
    workers = config.data.workers
    reading = f"{workers} loader processes" if workers else "in the training process"
    memory = f"{trial.memory_gb:.2f} GB {of or 'of this process; loader processes come on top'}"
    rows = [
        ("device", f"{device}, {config.train.precision}"),
        ("first step", f"{trial.first:.2f} s, loss {trial.loss:.3f}"),
        ("a step", f"{median(trial.step):.3f} s for the largest shape, {how}; others by their pixels"),
        ("reading", f"{trial.read * 1000:.1f} ms an image, {reading}"),
        ("an epoch", _duration(found.epoch_seconds)),
    ]
    if found.evaluations:
        each = f"{_duration(found.evaluation_seconds)} without scoring"
        rows.append(("evaluation", f"{each}, {found.evaluations} of them"))
    return [
        *rows,
        ("training", f"{_duration(found.seconds)} in all"),
        ("memory", memory if trial.memory_gb else "not told"),
    ]


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if seconds >= 10 else f"{seconds:.1f} s"
