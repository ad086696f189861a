"""The state of a run: everything that training changes and ``last.pt`` holds."""

import contextlib
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fsaf.checkpoints.format import Checkpoint, Training, save_checkpoint
from fsaf.checkpoints.structure import fits
from fsaf.checkpoints.weights import check_optimizer, load_weights
from fsaf.config import Config
from fsaf.data.records import Classes
from fsaf.device import random_state, set_random_state
from fsaf.errors import CheckpointError, Stopped, UserError
from fsaf.lock import FolderLock
from fsaf.model.detector import FSAF
from fsaf.processes import group
from fsaf.training.optim import MovingAverage, set_rate
from fsaf.training.precision import Precision
from fsaf.training.window import Blame, Window, check_finite, mean_loss

UNHEALTHY = 10.0
"""A loss of so many times the lowest, and above the first, is that of a training that diverges."""


@dataclass(kw_only=True)
class Run:
    """Weights, optimizer, and the progress of training."""

    config: Config
    classes: Classes
    out: Path
    model: FSAF
    optimizer: torch.optim.Optimizer
    average: MovingAverage[FSAF] | None
    precision: Precision
    step: int = 0
    """Steps done."""
    offset: int = 0
    """Steps made beyond ``position``: not 0 if a resumed run has other steps than before in its epochs."""
    best: float | None = None
    """Highest AP so far; None if none is defined."""
    best_epoch: int = 0
    waited: int = 0
    """Evaluations since the last higher AP."""
    timed_out: bool = False
    """True if the time of ``train.hours`` is up."""
    seconds_before: float = 0.0
    """Seconds of training before the run was resumed."""
    started: float = field(default_factory=time.monotonic)
    to_evaluate: bool = False
    """True if the last step ended an epoch that is yet to be evaluated."""
    window: Window = field(default_factory=Window)
    """The steps since the last record."""
    notes: list[str] = field(default_factory=list)
    """Messages to print at the start: origin of the weights, how the run was resumed."""
    losses: dict[str, float] = field(default_factory=dict)
    """Mean loss of the first record and the lowest; the last, also of steps that are not yet recorded."""
    name_image: Callable[[int], str] = str
    """Returns the file of an image id, for messages."""
    good: Path | None = None
    """The last checkpoint with a healthy loss."""
    saved_at: float = field(default_factory=time.monotonic)
    """Time of the last checkpoint, or of the start."""
    resumed: bool = False
    lock: FolderLock | None = None
    """Of the run folder."""
    steps_per_epoch: int | None = None
    """Steps of an epoch, images of a step, and fingerprints of the splits (``fsaf.training.resume``). Until
    ``take_up`` those of the checkpoint, if it holds them."""
    images_per_step: int | None = None
    data: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Return the seconds of training so far, those before the run was resumed included."""
        return self.seconds_before + time.monotonic() - self.started

    @property
    def ended(self) -> bool:
        """Return True if training ends here although steps are left."""
        return self.timed_out or 0 < self.config.train.patience <= self.waited

    @property
    def position(self) -> int:
        """Return how far training has come, in steps of this run's epochs."""
        return self.step - self.offset

    @position.setter
    def position(self, value: int) -> None:
        self.offset = self.step - value

    @property
    def last_pt(self) -> Path:
        """Return the path of the checkpoint that training resumes from."""
        return self.out / "checkpoints" / "last.pt"

    @property
    def best_pt(self) -> Path:
        """Return the path of the network with the highest AP."""
        return self.out / "checkpoints" / "best.pt"

    @property
    def evaluated(self) -> FSAF:
        """Return the network that is evaluated and kept: the moving average if there is one."""
        return self.average.model if self.average else self.model

    @property
    def last_good(self) -> str:
        """Return a phrase that names the checkpoint to go back to."""
        return f"the last good checkpoint is {self.good}" if self.good else "no good checkpoint yet"

    def blame(self) -> Blame:
        """Return values for an error message about a step since the last record."""
        return Blame(
            step=self.step,
            name_image=self.name_image,
            last_good=self.last_good,
            overflow_skipped=self.precision.skips_overflow,
        )

    def note_loss(self, loss: float) -> None:
        """Remember the mean loss of a record."""
        first, lowest = self.losses.get("first", loss), min(self.losses.get("lowest", loss), loss)
        self.losses = {"first": first, "lowest": lowest, "last": loss}

    @property
    def diverges(self) -> str:
        """Return a phrase about the loss of a training that diverges."""
        loss = self.losses
        return f"training diverges: the loss is {loss['last']:.3g}, after {loss['lowest']:.3g} at its lowest,"

    @property
    def is_healthy(self) -> bool:
        """Return False if the last loss is that of a training that diverges, although it is finite."""
        loss = self.losses
        return not loss or loss["last"] <= max(loss["first"], UNHEALTHY * loss["lowest"])

    @property
    def how_to_resume(self) -> str:
        """Return a phrase with the command that resumes this run."""
        return f"resume with: fsaf train --resume {shlex.quote(str(self.out))}"

    def stop_if(self, number: int) -> None:
        """Raise Stopped for signal ``number``; do nothing for 0. Call it when everything is saved."""
        if number:
            raise Stopped(
                f"stopped by {signal.Signals(number).name} after step {self.step}; {self.last_good}; "
                f"{self.how_to_resume}",
                number,
            )

    def save(self) -> None:
        """Write ``last.pt``, all or nothing. All processes call it; the main process writes.

        Raises UserError if it cannot be written, or if a step since the last record went wrong.
        """
        state, keep = self.state(), self.config.train.keep
        if group.is_main():
            # A file that is damaged, or of a training that diverges, must not replace the good one before it.
            save_checkpoint(self.last_pt, state, keep if self.last_pt == self.good else 1)
        self.saved_at = time.monotonic()
        if self.is_healthy:
            self.good = self.last_pt
        elif self.good == self.last_pt:
            self.good = self.last_pt.with_name("last-1.pt") if keep > 1 else None

    def save_epoch(self, epoch: int) -> None:
        """Write the evaluated network alone to ``epoch-0010.pt`` and so on. All processes may call it."""
        if group.is_main():
            save_checkpoint(self.best_pt.with_name(f"epoch-{epoch:04}.pt"), self._network())

    def save_best(self) -> None:
        """Write the evaluated network alone to ``best.pt``. All processes may call it."""
        if group.is_main():
            save_checkpoint(self.best_pt, self._network())

    def state(self) -> Checkpoint:
        """Return everything that ``load_state`` needs. All processes call it.

        Raises UserError if a step since the last record went wrong.
        """
        mine = {"random": random_state(self.model.mean.device), "window": self.window.state_dict()}
        parts = group.gather_all(mine)
        windows = [part["window"] for part in parts]
        check_finite(windows, self.blame())
        if (loss := mean_loss(windows)) is not None and self.losses:
            self.losses = self.losses | {"last": loss}
        training = Training(
            best=self.best,
            best_epoch=self.best_epoch,
            to_evaluate=self.to_evaluate,
            optimizer=self.optimizer.state_dict(),
            scaler=self.precision.state_dict(),
            processes=parts,
            model=self.model.state_dict() if self.average else None,
            average_updates=self.average.updates if self.average else None,
            position=self.position,
            steps_per_epoch=self.steps_per_epoch,
            images_per_step=self.images_per_step,
            data=self.data,
            losses=self.losses,
            waited=self.waited,
            timed_out=self.timed_out,
        )
        return replace(self._network(), training=training, seconds=self.seconds, launch=group.launch_id())

    def _network(self) -> Checkpoint:
        return Checkpoint(
            config=self.config, classes=self.classes, weights=self.evaluated.state_dict(), step=self.step
        )

    def load_state(self, checkpoint: Checkpoint) -> None:
        """Restore what ``state`` returned. Raises UserError if it does not fit this run."""
        training, where = checkpoint.training, str(self.last_pt)
        if training is None or checkpoint.step is None:
            raise CheckpointError(
                f"{where}: holds no training state; give it as --init to start from its weights"
            )
        if (training.average_updates is not None) != (self.average is not None):
            raise self._does_not_fit("train.ema")
        if checkpoint.config.optim.name != self.config.optim.name:
            raise self._does_not_fit("optim.name")
        trained = [
            (each.model.frozen_stages, each.optim.backbone_rate == 1)
            for each in (checkpoint.config, self.config)
        ]
        if trained[0] != trained[1]:  # the optimizer has other weights, or other groups of them
            raise self._does_not_fit("model.frozen_stages and optim.backbone_rate")
        if checkpoint.classes != self.classes:
            raise CheckpointError(
                f"{where}: has the classes {', '.join(checkpoint.classes.names[:5])}..., the data has "
                f"{', '.join(self.classes.names[:5])}...; resume on the same data set"
            )
        if self.average and training.average_updates is not None:
            load_weights(self.average.model, checkpoint.weights, where)
            self.average.updates = training.average_updates
        load_weights(self.model, training.model if training.model else checkpoint.weights, where)
        check_optimizer(self.optimizer, training.optimizer, where)
        self._load_optimizer(training.optimizer)
        with _refusing(where):
            self.precision.load_state_dict(training.scaler)
            losses = {key: training.losses[key] for key in ("first", "lowest", "last") if training.losses}
        self.step, self.to_evaluate = checkpoint.step, training.to_evaluate
        self.position = self.step if training.position is None else training.position
        self.steps_per_epoch, self.images_per_step = training.steps_per_epoch, training.images_per_step
        self.data, self.losses, self.resumed = training.data, losses, True
        defined = training.best is not None and training.best >= 0  # older files hold -1 for None
        self.best, self.best_epoch = training.best if defined else None, training.best_epoch
        self.waited, self.seconds_before = training.waited, checkpoint.seconds
        hours = self.config.train.hours  # which may be more now
        self.timed_out = training.timed_out and hours is not None and self.seconds_before >= 3600 * hours
        if len(training.processes) == group.processes():
            mine, device = training.processes[group.rank()], self.model.mean.device
            with _refusing(where):
                if not fits(mine, dict[str, dict[str, Any]]):
                    raise TypeError("of its processes")
                set_random_state(device, mine["random"])
                if checkpoint.config.train.precision == self.config.train.precision:
                    # In another precision a step that fp16 skipped would count as a fault.
                    self.window.load_state_dict(mine["window"], device)

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        settings = [
            {key: value for key, value in each.items() if key != "params"}
            for each in self.optimizer.param_groups
        ]
        try:
            self.optimizer.load_state_dict(state)
        except ValueError as error:  # other weights train
            raise self._does_not_fit("model.frozen_stages and optim.backbone_rate") from error
        for each, given in zip(self.optimizer.param_groups, settings, strict=True):
            each.update(given)  # weight decay and others follow this run's config
        set_rate(self.optimizer, float(state["param_groups"][0]["lr"]))

    def _does_not_fit(self, key: str) -> UserError:
        return CheckpointError(
            f"{self.last_pt}: cannot be resumed with these settings; {key} must be as it was"
        )


@contextlib.contextmanager
def _refusing(where: str) -> Iterator[None]:
    """Turn the errors of PyTorch for a damaged state into a CheckpointError."""
    try:
        yield
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{where}: its training state is damaged ({error})") from error
