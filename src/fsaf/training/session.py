"""Set up a training: open the data, build the network and all that trains it. Nothing is written."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from fsaf.config import Config
from fsaf.data.balance import balance_note
from fsaf.data.batch import Boxes
from fsaf.data.records import Records
from fsaf.data.sampler import ShapeBatches
from fsaf.data.samples import Images
from fsaf.data.workers import Loader, make_loader
from fsaf.device import GraphTools, is_accelerator
from fsaf.objective.objective import LossTerms
from fsaf.processes import group
from fsaf.text import printable
from fsaf.training.fit import fit_size, fit_to_data, schedule_notes
from fsaf.training.graphs import CapturedStep, open_tools
from fsaf.training.memory import images_in_memory
from fsaf.training.prepare import open_for_training
from fsaf.training.resume import find_earlier, take_up
from fsaf.training.run import Run
from fsaf.training.schedule import learning_rate, peak_rate
from fsaf.training.start import start_run
from fsaf.training.step import ForwardLoss, compile_forward_loss, train_step

Step: TypeAlias = Callable[[Tensor, Boxes, float], tuple[LossTerms, Tensor]]
"""A training step: takes images, boxes and learning rate, returns loss terms and gradient norm."""


@dataclass(kw_only=True)
class Session:
    """Everything that a training needs, set up before its first step."""

    records: Records
    """The split to train on."""
    validation: Records | None
    """The split to evaluate on; None if nothing is evaluated."""
    notes: list[str]
    """Notes on the data, to print at the start."""
    run: Run
    tools: GraphTools | None
    """Object that captures the step; None if ``train.graphs`` is off."""
    images: Images
    """``records`` as samples, augmented."""
    loader: Loader
    sampler: ShapeBatches
    """Orders the batches of ``loader``."""

    @property
    def batch(self) -> int:
        """Return the number of images of a step, of all processes."""
        return self.sampler.total

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of steps of an epoch."""
        return self.sampler.steps

    @property
    def all_steps(self) -> int:
        """Return the number of steps of all epochs, over which the learning rate is scheduled."""
        return self.run.config.train.epochs * self.steps_per_epoch

    @property
    def last_step(self) -> int:
        """Return the step that training ends at."""
        last = self.all_steps + self.run.offset
        return min(last, self.run.config.train.max_steps or last)

    @property
    def peak_rate(self) -> float:
        """Return the highest learning rate."""
        return peak_rate(self.run.config.optim, self.batch)

    def rate(self, ahead: int) -> float:
        """Return the learning rate of the step that comes after ``ahead`` others."""
        run = self.run
        share = learning_rate(
            run.config.optim,
            run.position + ahead,
            self.steps_per_epoch,
            self.all_steps,
            made=run.step + ahead,
        )
        return self.peak_rate * share

    @property
    def epoch(self) -> int:
        """Return the epoch, from 1, that the last step belongs to; 0 before the first step."""
        return -(-self.run.position // self.steps_per_epoch)

    @property
    def over(self) -> bool:
        """Return True if no step is left, or training ends early."""
        return self.run.step >= self.last_step or self.run.ended

    @property
    def finished(self) -> bool:
        """Return True if there is nothing left to do."""
        return self.over and not self.run.to_evaluate


def open_session(
    config: Config, device: torch.device, *, processes: int = 1, rank: int = 0, workers: int | None = None
) -> Session:
    """Open the data of a config, build its network or resume it, and return both with a loader.

    processes, rank: the loader reads the batches of process ``rank``. workers: loader processes; by default
    ``data.workers``. Raises UserError for mistakes in config or data.
    """
    records, validation, notes = open_for_training(config)
    tools = open_tools(config, device, processes)
    earlier = find_earlier(config)
    before = earlier.checkpoint.config if earlier else None
    config, size = fit_size(config, records, before)
    sized = config
    config, chosen = fit_to_data(
        config, len(records.images), processes, before, lambda: images_in_memory(sized, records, device)
    )
    run = start_run(config, records.classes, device, earlier)
    run.to_evaluate = run.to_evaluate and validation is not None
    idle = config.train.patience and validation is None
    images = Images(records, config.data, augment=True, seed=config.train.seed)
    loader, sampler = make_loader(
        images,
        config.data.batch_size * config.train.accumulate,
        workers=config.data.workers if workers is None else workers,
        train=True,
        seed=config.train.seed,
        rank=rank,
        world=processes,
        pin_memory=is_accelerator(device),
    )
    files = {image.id: image.path for image in records.images}
    run.name_image = lambda id_: printable(files.get(id_, id_))
    take_up(
        run, sampler.steps, sampler.total, {"train": records} | ({"val": validation} if validation else {})
    )
    if config.data.balance:
        notes.append(balance_note(records, config.data.balance, sampler.images))
    return Session(
        records=records,
        validation=validation,
        notes=[
            *size,
            *chosen,
            *notes,
            *schedule_notes(config, config.train.epochs * sampler.steps),
            *(["train.patience does nothing, since nothing is evaluated"] if idle else []),
        ],
        run=run,
        tools=tools,
        images=images,
        loader=loader,
        sampler=sampler,
    )


def make_step(run: Run, tools: GraphTools | None, say: Callable[[str], None]) -> Step:
    """Return the training step of a run, compiled or captured as its config says.

    tools: of ``open_tools``. say: prints a line for each capture.
    """
    forward_loss = make_forward_loss(run)
    if tools:
        return CapturedStep(run, forward_loss, tools, say)
    return functools.partial(train_step, run, forward_loss)


def make_forward_loss(run: Run) -> Callable[[Tensor, Boxes], LossTerms]:
    """Return network and objective of a run as one module that averages gradients over processes."""
    forward_loss = ForwardLoss(run.model, run.config.objective, run.precision)
    if run.config.train.compile:
        compile_forward_loss(forward_loss, run.config.train.compile_backend)
    device = run.model.mean.device
    return group.averaging(forward_loss, device, buffers=not run.config.model.frozen_norm)
