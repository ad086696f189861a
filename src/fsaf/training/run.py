"""The state of a run: everything that training changes, and that ``last.pt`` holds."""

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fsaf.checkpoints.format import (
    checkpoint_classes,
    load_newest,
    load_weights,
    make_checkpoint,
    save_checkpoint,
)
from fsaf.config import Config
from fsaf.data.records import Classes
from fsaf.device import random_state, set_random_state
from fsaf.errors import CheckpointError, Stopped, UserError
from fsaf.model.detector import FSAF
from fsaf.processes import group
from fsaf.training.optim import MovingAverage, set_rate
from fsaf.training.precision import Precision
from fsaf.training.window import Window, check_finite


@dataclass(kw_only=True)
class Run:
    """Weights, optimizer, and how far training has come."""

    config: Config
    classes: Classes
    out: Path
    model: FSAF
    optimizer: torch.optim.Optimizer
    average: MovingAverage[FSAF] | None
    precision: Precision
    step: int = 0
    """Steps done."""
    best: float = -1.0
    """Highest AP so far."""
    best_epoch: int = 0
    to_evaluate: bool = False
    """Whether the step ends an epoch that is yet to be evaluated."""
    window: Window = field(default_factory=Window)
    """The steps since the last record."""
    notes: list[str] = field(default_factory=list)
    """What the person watching should know of the weights it starts from, and how it was resumed."""
    good: Path | None = None
    """The checkpoint this run was resumed from, or has written last."""

    @property
    def last_pt(self) -> Path:
        """The checkpoint that training goes on from."""
        return self.out / "checkpoints" / "last.pt"

    @property
    def evaluated(self) -> FSAF:
        """The network that is evaluated and kept: the moving average if there is one."""
        return self.average.model if self.average else self.model

    @property
    def last_good(self) -> str:
        """The checkpoint to go back to, in words."""
        return f"the last good checkpoint is {self.good}" if self.good else "no checkpoint yet"

    def stop_if(self, number: int) -> None:
        """Raise Stopped for signal ``number``, once everything is saved; nothing for 0."""
        if number:
            raise Stopped(
                f"stopped by {signal.Signals(number).name} after step {self.step}; {self.last_good}: "
                "the same command with --resume true goes on",
                number,
            )

    def save(self, name: str) -> None:
        """Write ``checkpoints/<name>``, all or nothing; to be called by all processes, the main one writes.

        Raises UserError where it cannot, or where a step since the last record went wrong.
        """
        mine = {"random": random_state(self.model.mean.device), "window": self.window.state_dict()}
        parts = group.gather_all(mine)
        check_finite([part["window"] for part in parts], self.last_good, self.precision.skips_overflow)
        path = self.out / "checkpoints" / name
        if group.is_main():
            self._write(path, parts)
        if path == self.last_pt:
            self.good = path

    def _write(self, path: Path, parts: list[dict[str, Any]]) -> None:
        training: dict[str, Any] = {
            "step": self.step,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "to_evaluate": self.to_evaluate,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.state_dict(),
            "processes": parts,
        }
        if self.average:
            training |= {"model": self.model.state_dict(), "average_updates": self.average.updates}
        checkpoint = make_checkpoint(self.evaluated.state_dict(), self.classes, self.config, training)
        checkpoint["launch"] = group.launch_id()
        # A file that was found damaged must not take the place of the good one before it.
        keep = self.config.train.keep if path == self.last_pt == self.good else 1
        save_checkpoint(path, checkpoint, keep)

    def resume(self) -> None:
        """Restore what ``last.pt`` holds, or the one before it that is whole.

        Raises UserError where it does not fit this run.
        """
        checkpoint, path, faults = group.from_main(lambda: load_newest(self.last_pt))
        self.good = path
        if path != self.last_pt:
            why = faults[0] if faults else f"{self.last_pt}: no such checkpoint"
            self.notes.append(f"warning: {why}; going on from the one before, {path}")
        training = checkpoint.get("training")
        if training is None:
            raise CheckpointError(
                f"{self.last_pt}: holds weights alone; give it as --init to start from them"
            )
        if ("average_updates" in training) != (self.average is not None):
            raise self._does_not_fit("train.ema")
        if checkpoint["config"]["optim"]["name"] != self.config.optim.name:
            raise self._does_not_fit("optim.name")
        if (known := checkpoint_classes(checkpoint)) != self.classes:
            raise CheckpointError(
                f"{self.last_pt}: is of the classes {', '.join(known.names[:5])}..., the data of "
                f"{', '.join(self.classes.names[:5])}...; resume on the same data set"
            )
        if self.average:
            load_weights(self.average.model, checkpoint["model"], str(self.last_pt))
            self.average.updates = training["average_updates"]
        weights = training["model"] if self.average else checkpoint["model"]
        load_weights(self.model, weights, str(self.last_pt))
        settings = [
            {key: value for key, value in each.items() if key != "params"}
            for each in self.optimizer.param_groups
        ]
        try:
            self.optimizer.load_state_dict(training["optimizer"])
        except ValueError as error:  # other weights train
            raise self._does_not_fit("model.frozen_stages and optim.backbone_rate") from error
        for each, given in zip(self.optimizer.param_groups, settings, strict=True):
            each.update(given)  # weight decay and the like are as this run's config says
        set_rate(self.optimizer, float(training["optimizer"]["param_groups"][0]["lr"]))
        self.precision.load_state_dict(training["scaler"])
        self.step = training["step"]
        self.best, self.best_epoch = training["best"], training["best_epoch"]
        self.to_evaluate = training.get("to_evaluate", False)
        parts = training.get("processes", [])
        if len(parts) == group.processes():
            mine, device = parts[group.rank()], self.model.mean.device
            set_random_state(device, mine["random"])
            if checkpoint["config"]["train"]["precision"] == self.config.train.precision:
                # A step that fp16 skipped would be a fault in another.
                self.window.load_state_dict(mine["window"], device)

    def _does_not_fit(self, key: str) -> UserError:
        return CheckpointError(
            f"{self.last_pt}: cannot be resumed with these settings; {key} must be as it was"
        )
