"""Training: one loop that reads from top to bottom."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from torch import Tensor

from fsaf.config import Config, ObjectiveConfig, to_dict
from fsaf.convert import read_checkpoint
from fsaf.data.batch import Batch, Boxes
from fsaf.data.dataset import for_training, open_split
from fsaf.data.loader import Images, make_loader
from fsaf.data.records import Classes
from fsaf.device import resolve_device
from fsaf.errors import UserError
from fsaf.model.detector import FSAF
from fsaf.model.weights import load_backbone_weights
from fsaf.objective.objective import LossTerms, objective
from fsaf.results.evaluate import evaluate, write_evaluation
from fsaf.results.predict import Detector
from fsaf.train.checkpoint import (
    load_checkpoint,
    load_weights,
    make_checkpoint,
    save_checkpoint,
)
from fsaf.train.log import RunLog
from fsaf.train.optim import MovingAverage, make_optimizer
from fsaf.train.precision import Precision
from fsaf.train.schedule import learning_rate, peak_rate


class ForwardLoss(torch.nn.Module):
    """Network and objective in one, so that they compile into one graph a batch shape."""

    def __init__(self, model: FSAF, config: ObjectiveConfig, precision: Precision) -> None:
        super().__init__()
        self.model, self.config, self.precision = model, config, precision

    def forward(self, images: Tensor, boxes: Boxes) -> LossTerms:
        """Loss terms of a batch."""
        with self.precision.autocast():
            outputs = self.model(images, boxes.sizes)
        return objective(outputs, boxes, self.config)


@dataclass(kw_only=True)
class Progress:
    """How far training has come; saved in ``last.pt``."""

    step: int = 0
    best: float = -1.0
    best_epoch: int = 0


def train(config: Config, console: Console | None = None) -> Path:
    """Train as ``config`` says and return the run folder.

    Raises UserError for mistakes in config or data, and where the loss is no longer finite.
    """
    console = console or Console()
    device = resolve_device(config.device)
    out = _run_folder(config)
    torch.manual_seed(config.train.seed)

    records, notes = for_training(open_split(config.data, "train"), config.data)
    validation = None
    if config.train.evaluate_every and config.data.val.annotations:
        validation = open_split(config.data, "val", records.classes)
    model = _start_model(config, records.classes).to(device)
    model = model.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, config.optim)
    average = MovingAverage(model, config.train.ema) if config.train.ema else None
    precision = Precision(config.train, device)
    forward_loss: Callable[[Tensor, Boxes], LossTerms] = ForwardLoss(model, config.objective, precision)
    if config.train.compile:
        forward_loss = torch.compile(forward_loss, dynamic=False)

    loader, sampler = make_loader(
        Images(records, config.data, augment=True, seed=config.train.seed),
        config.data.batch_size,
        workers=config.data.workers,
        train=True,
        seed=config.train.seed,
        pin_memory=device.type != "cpu",
    )
    per_epoch = sampler.steps
    total = config.train.epochs * per_epoch
    last_step = min(total, config.train.max_steps or total)
    rate = peak_rate(config.optim, config.data.batch_size)
    last_pt = out / "checkpoints" / "last.pt"
    progress = Progress()
    if config.resume:
        progress = _resume(last_pt, model, optimizer, average, precision)

    def state() -> dict[str, Any]:
        training = {
            "step": progress.step,
            "best": progress.best,
            "best_epoch": progress.best_epoch,
            "optimizer": optimizer.state_dict(),
            "scaler": precision.scaler.state_dict(),
        }
        if average:
            training |= {"model": model.state_dict(), "average_updates": average.updates}
        weights = average.model if average else model
        return make_checkpoint(weights.state_dict(), records.classes, config, training)

    # From here on the run folder is written.
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.yaml").write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")
    with RunLog(out, last_step, progress.step, console) as log:
        log.say(
            f"{len(records.images)} images, {len(records.classes)} classes from {records.source}; "
            f"{per_epoch} steps an epoch of {config.data.batch_size} images; "
            f"{_count(model)} weights, {config.train.precision}, on {device}; peak learning rate {rate:g}; "
            f"run folder {out}"
        )
        for note in notes:
            log.say(f"note: {note}")
        window = Window()
        while progress.step < last_step:
            epoch, start = divmod(progress.step, per_epoch)
            sampler.set_epoch(epoch, start)
            model.train()
            waiting = time.perf_counter()
            for batch in loader:
                window.data_seconds += time.perf_counter() - waiting
                lr = rate * learning_rate(config.optim, progress.step, per_epoch, total)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                images = batch.images.to(device, non_blocking=True)
                terms = forward_loss(images, batch.boxes.to(device))
                norm = precision.step(terms.loss, optimizer, model.parameters(), config.optim.clip_norm)
                if average:
                    average.update(model)
                progress.step += 1
                window.add(batch, terms, norm)
                ends = progress.step == last_step or progress.step % per_epoch == 0
                if ends or progress.step % config.log.every == 0:
                    record = {"step": progress.step, "epoch": epoch + 1, "lr": lr} | window.read(last_pt)
                    record["loss_scale"] = precision.loss_scale
                    record["memory_gb"] = _memory_gb(device)
                    log.step(progress.step, record, config.train.epochs)
                    if window.cut:
                        log.say(f"warning: {window.cut} boxes cut; raise data.max_boxes")
                    window = Window()
                if progress.step == last_step:
                    break
                waiting = time.perf_counter()

            epochs_done = epoch + 1
            due = config.train.evaluate_every and epochs_done % config.train.evaluate_every == 0
            if validation and (due or progress.step == last_step):
                evaluated = average.model if average else model
                detector = Detector(evaluated.eval(), records.classes, config)
                evaluation, predictions = evaluate(detector, validation, config.data)
                write_evaluation(out, evaluation, predictions)
                log.evaluation(progress.step, {"step": progress.step, "epoch": epochs_done} | evaluation)
                ap, ap50 = evaluation["AP"] or 0.0, evaluation["AP50"] or 0.0
                log.say(f"epoch {epochs_done}: AP {ap:.3f}  AP50 {ap50:.3f}")
                if ap > progress.best:
                    progress.best, progress.best_epoch = ap, epochs_done
                    save_checkpoint(out / "checkpoints" / "best.pt", state())
            save_checkpoint(last_pt, state())
            window = Window()
    return out


class Window:
    """What happened since the last record; stays on the device until it is read."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.terms: list[Tensor] = []
        self.ids: list[list[int]] = []
        self.data_seconds, self.cut = 0.0, 0

    def add(self, batch: Batch, terms: LossTerms, norm: Tensor) -> None:
        """Take in a step."""
        scalars = (
            terms.loss,
            terms.loss_cls_l.sum(),
            terms.loss_box_l.sum(),
            terms.num_pos,
            terms.pos_recall,
        )
        self.terms.append(torch.cat([torch.stack([*scalars, norm]), terms.level_share_l]).detach())
        self.ids.append(batch.ids)
        self.cut += batch.cut

    def read(self, last_good: Path) -> dict[str, Any]:
        """Means over the window. Raises UserError where a loss was not finite."""
        rows = torch.stack(self.terms).cpu()
        bad = (~rows[:, 0].isfinite()).tolist()
        if any(bad):
            kept = f"the last good checkpoint is {last_good}" if last_good.is_file() else "no checkpoint yet"
            raise UserError(
                f"the loss is not finite on images {self.ids[bad.index(True)]}; {kept}. "
                "Lower optim.lr, check these images' boxes, or use another train.precision"
            )
        names = ("loss", "loss_cls", "loss_box", "num_pos", "pos_recall", "grad_norm")
        mean = rows.mean(0).tolist()
        seconds = time.perf_counter() - self.start
        steps = len(self.terms)
        return dict(zip(names, mean, strict=False)) | {
            "images_per_second": sum(map(len, self.ids)) / seconds,
            "data_seconds": self.data_seconds / steps,
            "step_seconds": seconds / steps,
            "level_share": mean[len(names) :],
        }


def _run_folder(config: Config) -> Path:
    """The run folder, if training may write there."""
    if config.out is None:
        raise UserError("out is not set; give the run folder with --out FOLDER")
    out = Path(config.out)
    if (out / "checkpoints" / "last.pt").exists() and not config.resume:
        raise UserError(f"{out}: holds a run already; go on with --resume true, or give another --out FOLDER")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file; give another --out FOLDER")
    return out


def _start_model(config: Config, classes: Classes) -> FSAF:
    """The network with the weights that training starts from."""
    model = FSAF(config.model, len(classes))
    if config.resume:
        return model
    if config.init is None:
        load_backbone_weights(model.backbone, config.model.backbone, config.model.weights)
        return model
    checkpoint = read_checkpoint(Path(config.init))
    load_weights(model, checkpoint["model"], config.init)
    return model


def _resume(
    path: Path,
    model: FSAF,
    optimizer: torch.optim.Optimizer,
    average: MovingAverage[FSAF] | None,
    precision: Precision,
) -> Progress:
    """Restore everything that ``last.pt`` holds."""
    checkpoint = load_checkpoint(path)
    training = checkpoint.get("training")
    if training is None or ("average_updates" in training) != (average is not None):
        raise UserError(f"{path}: cannot be resumed with these settings; train.ema must be as it was")
    if average:
        load_weights(average.model, checkpoint["model"], str(path))
        average.updates = training["average_updates"]
    load_weights(model, training["model"] if average else checkpoint["model"], str(path))
    optimizer.load_state_dict(training["optimizer"])
    precision.scaler.load_state_dict(training["scaler"])
    return Progress(step=training["step"], best=training["best"], best_epoch=training["best_epoch"])


def _count(model: torch.nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M"


def _memory_gb(device: torch.device) -> float:
    """Peak memory: of the accelerator, or of this process on a CPU."""
    if device.type != "cpu":
        return torch.accelerator.max_memory_allocated(device) / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
