"""The state of a run: everything that training changes, and that ``last.pt`` holds."""

import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from fsaf.config import Config
from fsaf.convert import read_checkpoint
from fsaf.data.records import Classes
from fsaf.device import random_state, set_random_state
from fsaf.errors import Stopped, UserError, check_folder
from fsaf.model.detector import FSAF
from fsaf.model.weights import load_backbone_weights
from fsaf.train import distributed
from fsaf.train.checkpoint import (
    checkpoint_classes,
    checkpoints_at,
    load_newest,
    load_weights,
    make_checkpoint,
    save_checkpoint,
)
from fsaf.train.optim import MovingAverage, make_optimizer, set_rate
from fsaf.train.precision import Precision
from fsaf.train.transfer import plan_transfer
from fsaf.train.window import Window, check_finite


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
        parts = distributed.gather_all(mine)
        check_finite([part["window"] for part in parts], self.last_good, self.precision.skips_overflow)
        path = self.out / "checkpoints" / name
        if distributed.is_main():
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
        checkpoint["launch"] = distributed.launch_id()
        # A file that was found damaged must not take the place of the good one before it.
        keep = self.config.train.keep if path == self.last_pt == self.good else 1
        save_checkpoint(path, checkpoint, keep)

    def resume(self) -> None:
        """Restore what ``last.pt`` holds, or the one before it that is whole.

        Raises UserError where it does not fit this run.
        """
        checkpoint, path, faults = distributed.from_main(lambda: load_newest(self.last_pt))
        self.good = path
        if path != self.last_pt:
            why = faults[0] if faults else f"{self.last_pt}: no such checkpoint"
            self.notes.append(f"warning: {why}; going on from the one before, {path}")
        training = checkpoint.get("training")
        if training is None:
            raise UserError(f"{self.last_pt}: holds weights alone; give it as --init to start from them")
        if ("average_updates" in training) != (self.average is not None):
            raise self._does_not_fit("train.ema")
        if checkpoint["config"]["optim"]["name"] != self.config.optim.name:
            raise self._does_not_fit("optim.name")
        if (known := checkpoint_classes(checkpoint)) != self.classes:
            raise UserError(
                f"{self.last_pt}: is of the classes {', '.join(known.names[:5])}..., the data of "
                f"{', '.join(self.classes.names[:5])}...; resume on the same data set"
            )
        if self.average:
            load_weights(self.average.model, checkpoint["model"], str(self.last_pt))
            self.average.updates = training["average_updates"]
        weights = training["model"] if self.average else checkpoint["model"]
        load_weights(self.model, weights, str(self.last_pt))
        settings = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer.param_groups
        ]
        try:
            self.optimizer.load_state_dict(training["optimizer"])
        except ValueError as error:  # other weights train
            raise self._does_not_fit("model.frozen_stages and optim.backbone_rate") from error
        for group, given in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(given)  # weight decay and the like are as this run's config says
        set_rate(self.optimizer, float(training["optimizer"]["param_groups"][0]["lr"]))
        self.precision.load_state_dict(training["scaler"])
        self.step = training["step"]
        self.best, self.best_epoch = training["best"], training["best_epoch"]
        self.to_evaluate = training.get("to_evaluate", False)
        parts = training.get("processes", [])
        if len(parts) == distributed.processes():
            mine, device = parts[distributed.rank()], self.model.mean.device
            set_random_state(device, mine["random"])
            if checkpoint["config"]["train"]["precision"] == self.config.train.precision:
                # A step that fp16 skipped would be a fault in another.
                self.window.load_state_dict(mine["window"], device)

    def _does_not_fit(self, key: str) -> UserError:
        return UserError(f"{self.last_pt}: cannot be resumed with these settings; {key} must be as it was")


def start_run(config: Config, classes: Classes, device: torch.device) -> Run:
    """Build the network with the weights it starts from, and all that trains it.

    Raises UserError where the run folder is taken or weights cannot be had; nothing is written.
    """
    config = settle_resume(config)
    out = distributed.from_main(lambda: _run_folder(config))
    if config.train.accumulate > 1 and len(config.model.branches) > 1:
        raise UserError(
            f"train.accumulate = {config.train.accumulate}: the losses of two branches have two divisors, "
            "which parts of a batch cannot share; take one of model.branches, or a larger data.batch_size"
        )
    torch.manual_seed(config.train.seed)
    model = FSAF(config.model, len(classes))
    notes = [] if config.resume else _initial_weights(model, classes, config)
    model = model.to(device).to(memory_format=torch.channels_last)
    run = Run(
        config=config,
        classes=classes,
        out=out,
        model=model,
        optimizer=make_optimizer(model, config.optim, tensor_rate=config.train.cuda_graphs),
        average=MovingAverage(model, config.train.ema) if config.train.ema else None,
        precision=Precision(config.train, device),
        notes=notes,
    )
    torch.manual_seed(config.train.seed + distributed.rank())  # dropout differs between processes
    if config.resume:
        run.resume()
    return run


def _initial_weights(model: FSAF, classes: Classes, config: Config) -> list[str]:
    """Fill ``model`` from the checkpoint ``init``, as far as that fits, and the backbone else from
    ``model.weights``; returns what to tell of it."""
    transfer = None
    if config.init is not None:
        transfer = plan_transfer(model, classes, read_checkpoint(Path(config.init)), config.init)
    if transfer is None or not transfer.backbone:
        load_backbone_weights(model.backbone, config.model.backbone, config.model.weights)
    if transfer is None or config.init is None:
        return []
    model.load_state_dict(transfer.state, strict=False)
    return transfer.lines(config.init, len(model.state_dict()))


def settle_resume(config: Config) -> Config:
    """``config`` with ``resume`` true or false.

    ``auto`` goes on from ``last.pt`` where there is one. So do processes that a launcher has started again,
    where they have written it: it also starts those again that stopped at a run that was there before.
    """
    restarted = max(distributed.gather_all(distributed.restarts())) > 0
    if config.out is None or config.resume is True or not (config.resume == "auto" or restarted):
        return config
    last_pt = Path(config.out) / "checkpoints" / "last.pt"

    def goes_on() -> bool:
        if not checkpoints_at(last_pt):
            return False
        return config.resume == "auto" or load_newest(last_pt)[0].get("launch") == distributed.launch_id()

    return replace(config, resume=distributed.from_main(goes_on))


def _run_folder(config: Config) -> Path:
    if config.out is None:
        raise UserError("out is not set; give the run folder with --out FOLDER")
    out = Path(config.out)
    if checkpoints_at(out / "checkpoints" / "last.pt") and not config.resume:
        raise UserError(f"{out}: holds a run already; go on with --resume true, or give another --out FOLDER")
    check_folder(out)
    return out
