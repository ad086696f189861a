"""Find out what a training would do and need, without writing anything: ``fsaf train --dry-run``.

Data, run folder, weights and device are checked as in training. Then the largest batch of the first epoch is
read and trained on a few times. The time of other shapes is estimated by their pixels.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from fsaf.config import Config
from fsaf.data.batch import Batch
from fsaf.data.records import Records
from fsaf.detection.detector import Detector
from fsaf.device import is_accelerator, memory_gb, resolve_device
from fsaf.errors import UserError
from fsaf.measuring.batches import Batches, count_batches
from fsaf.measuring.flops import step_flops
from fsaf.measuring.timing import measure, wait
from fsaf.processes import group
from fsaf.processes.join import own_device
from fsaf.training.graphs import WARM_UP
from fsaf.training.run import Run
from fsaf.training.session import Step, make_step, open_session

SECONDS = 2.0
"""Time for which steps are repeated after the first ones; a longer step is measured once."""


@dataclass(kw_only=True)
class Trial:
    """Measurements of some steps on the largest batch."""

    loss: float
    """Loss of the first step."""
    first: float
    """Seconds of the first steps, including compilation and capture."""
    step: list[float]
    """Seconds of each step after them."""
    read: float
    """Seconds to read an image, in one process."""
    detect: float
    """Seconds to detect on an image."""
    memory_gb: float
    """Peak memory of the accelerator, or of this process on a CPU."""


@dataclass(kw_only=True)
class DryRun:
    """Everything that ``fsaf train --dry-run`` shows."""

    run: Run
    """The run as training would start it, after the steps of ``trial``."""
    records: Records
    validation: Records | None
    notes: list[str]
    devices: int
    batches: Batches
    start: int
    """The step of the schedule that training starts from: 0, or that of the checkpoint."""
    end: int
    """The step that training ends at."""
    flops: tuple[int, int]
    """Operations of a step of the largest shape: forward, and forward plus backward."""
    trial: Trial

    @property
    def epoch_seconds(self) -> float:
        """Estimate the seconds of an epoch: of its steps, or of reading if loader processes take longer."""
        steps, workers = median(self.trial.step) * self.batches.weight, self.run.config.data.workers
        read = self.trial.read * self.batches.images / self.devices
        return max(steps, read / workers) if workers else steps + read

    @property
    def evaluation_seconds(self) -> float:
        """Estimate the seconds of one evaluation, without scoring."""
        images = len(self.validation.images) if self.validation else 0
        read = self.trial.read / max(1, self.run.config.data.workers)
        return images / self.devices * (self.trial.detect + read)

    @property
    def evaluations(self) -> int:
        """Return the number of evaluations."""
        every, per_epoch = self.run.config.train.evaluate_every, self.batches.steps.total()
        if not every or self.validation is None or self.start >= self.end:
            return 0
        ends = {
            step for step in range(every * per_epoch, self.end + 1, every * per_epoch) if step > self.start
        }
        return len(ends | {self.end})

    @property
    def seconds(self) -> float:
        """Estimate the seconds from the starting step to the end of training."""
        epochs = max(0, self.end - self.start) / self.batches.steps.total()
        return self.trial.first + epochs * self.epoch_seconds + self.evaluations * self.evaluation_seconds


def dry_run(config: Config, devices: int = 1, say: Callable[[str], None] = lambda _: None) -> DryRun:
    """Do what training does up to its first steps, in this process alone, and write nothing.

    devices: number of processes of the training. say: prints what is being done. Raises UserError as training
    does, and if the run folder cannot be written.
    """
    if group.launched():
        raise UserError("--dry-run: runs in one process; leave torchrun out and give --devices N instead")
    device = resolve_device(config.device)
    if is_accelerator(device) and devices > 1:
        own_device(config.device, device.type, devices - 1, devices)
    say("reading annotations")
    session = open_session(config, device, processes=devices, workers=0)
    run, config = session.run, session.run.config
    _check_writable(run.out)
    batches, start = count_batches(session.images, session.sampler), run.position
    height, width = batches.shape
    parts, rows = config.train.accumulate, config.data.batch_size
    say(f"trying steps of {parts * rows} images of {height} x {width} on {device}")
    session.sampler.set_epoch(0, batches.largest)
    batch = next(iter(session.loader))
    forward, both = step_flops(config, len(run.classes), rows, (height, width))
    return DryRun(
        run=run,
        records=session.records,
        validation=session.validation,
        notes=run.notes + [f"note: {note}" for note in session.notes],
        devices=devices,
        batches=batches,
        start=start,
        end=session.last_step - run.offset,
        flops=(forward * parts, both * parts),
        trial=_try(run, batch, make_step(run, session.tools, say)),
    )


def _try(run: Run, batch: Batch, step: Step) -> Trial:
    """Train on ``batch`` a few times at a negligible learning rate, and detect on it once."""
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


def _check_writable(out: Path) -> None:
    folder = next(place for place in (out, *out.absolute().parents) if place.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{out}: cannot be written (no permission in {folder}); give another --out FOLDER")
