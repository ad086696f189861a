"""Training: the loop, from top to bottom."""

import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import torch
import yaml
from rich.console import Console
from torch import Tensor

from fsaf.config import Config, to_dict
from fsaf.data.batch import Boxes
from fsaf.data.records import Records
from fsaf.data.samples import Images
from fsaf.data.workers import Loader, WorkerDied, make_loader
from fsaf.detection.detector import Detector
from fsaf.device import GraphTools, copy_images, is_accelerator, peak_memory
from fsaf.errors import UserError
from fsaf.files import remove_leftovers, write_text
from fsaf.objective.objective import LossTerms
from fsaf.processes import group
from fsaf.processes.stop import StopRequest
from fsaf.run_folder.commands import note_command
from fsaf.scoring.evaluate import evaluate
from fsaf.scoring.results import write_evaluation
from fsaf.training.graphs import CapturedStep, open_tools
from fsaf.training.log import NoLog, RunLog
from fsaf.training.prepare import open_for_training
from fsaf.training.run import Run
from fsaf.training.schedule import learning_rate, peak_rate
from fsaf.training.start import start_run
from fsaf.training.step import FirstSteps, ForwardLoss, compile_forward_loss, train_step
from fsaf.training.window import Window

Step: TypeAlias = Callable[[Tensor, Boxes, float], tuple[LossTerms, Tensor]]
"""``train_step`` of a run: images, boxes, learning rate to loss terms and gradient norm."""


def train(config: Config, console: Console | None = None, *, command: str = "fsaf.train(config)") -> Path:
    """Train a detector and return the run folder.

    >>> config = load_recipe("lite0", ["--data.root=DATA", "--out=runs/mine"])
    >>> fsaf.train(config)
    PosixPath('runs/mine')

    Under torchrun or ``fsaf train --devices`` it runs as one of several processes. console: show progress
    there. command: noted in ``commands.jsonl`` of the run folder.
    Raises UserError for mistakes in config or data, and if the loss is no longer finite; Stopped after Ctrl-C
    or SIGTERM, with everything saved.
    """
    with group.join(config.device) as device:
        return _train(config, device, console or Console(), command)


def _train(config: Config, device: torch.device, console: Console, command: str) -> Path:
    records, validation, notes = open_for_training(config)
    graph_tools = open_tools(device, group.processes()) if config.train.graphs else None
    run = start_run(config, records.classes, device)
    loader, sampler = make_loader(
        Images(records, config.data, augment=True, seed=config.train.seed),
        config.data.batch_size * config.train.accumulate,
        workers=config.data.workers,
        train=True,
        seed=config.train.seed,
        rank=group.rank(),
        world=group.processes(),
        pin_memory=is_accelerator(device),
    )
    per_epoch = sampler.steps
    all_steps = config.train.epochs * per_epoch
    last_step = min(all_steps, config.train.max_steps or all_steps)
    total_batch = config.data.batch_size * config.train.accumulate * group.processes()
    rate = peak_rate(config.optim, total_batch)
    run.to_evaluate = run.to_evaluate and validation is not None

    log_of_run = _start_log(run, last_step, console, command)  # from here on files are written
    with log_of_run as log, StopRequest() as request, _naming_last_good(run):
        log.say(
            f"{len(records.images)} images, {len(records.classes)} classes from {records.source}; "
            f"{per_epoch} steps an epoch of {total_batch} images{_parts(config)}; "
            f"{_count(run.model)} weights, {config.train.precision}, on {device}; run folder {run.out}"
        )
        scaled = f" = {config.optim.lr:g} x {total_batch} / {config.optim.base_batch}"
        log.say(f"peak learning rate {rate:g}{scaled if config.optim.scale_lr else ''}")
        for note in run.notes + [f"note: {note}" for note in notes]:
            log.say(note)
        step = make_step(run, device, graph_tools, log.say)
        first_steps = FirstSteps(log.say) if config.train.compile else None
        while run.step < last_step or run.to_evaluate:
            if not run.to_evaluate:
                epoch, start = divmod(run.step, per_epoch)
                sampler.set_epoch(epoch, start)
                steps = min(per_epoch - start, last_step - run.step)
                rates = [
                    rate * learning_rate(config.optim, run.step + i, per_epoch, all_steps)
                    for i in range(steps)
                ]
                stopping = train_steps(run, loader, step, rates, epoch + 1, log, request, first_steps)
                due = config.train.evaluate_every and (epoch + 1) % config.train.evaluate_every == 0
                ended = (run.step % per_epoch == 0 and due) or run.step == last_step
                run.to_evaluate = bool(validation and ended)
                save(run, log)
                run.stop_if(stopping)
            if run.to_evaluate and validation:
                validate(run, validation, -(-run.step // per_epoch), log, request)
                save(run, log)
    return run.out


def train_steps(
    run: Run,
    loader: Loader,
    step: Step,
    rates: list[float],
    epoch: int,
    log: RunLog | NoLog,
    request: StopRequest,
    first_steps: FirstSteps | None = None,
) -> int:
    """Train on the next ``len(rates)`` batches, all of epoch ``epoch`` (from 1), and return 0; or stop before
    and return the signal that asked for it."""
    config, device = run.config, run.model.mean.device
    run.model.train()
    run.window.start_clock()
    batches = iter(loader)
    for done, rate in enumerate(rates, start=1):
        waiting = time.perf_counter()
        batch = next(batches)
        run.window.data_seconds += time.perf_counter() - waiting
        started = time.perf_counter()
        images, boxes = copy_images(batch.images, device), batch.boxes.to(device)
        terms, norm = step(images, boxes, rate)
        if first_steps:
            first_steps.note(images[: config.data.batch_size], time.perf_counter() - started)
        run.window.add(batch, terms, norm)
        stopping = request.agreed()
        if done == len(rates) or run.step % config.log.every == 0:
            means = run.window.read(run.last_good, run.precision.skips_overflow)
            record = {"step": run.step, "epoch": epoch, "lr": rate} | means
            record |= {"loss_scale": run.precision.loss_scale, "memory_gb": memory_gb(device)}
            log.step(run.step, record, config.train.epochs)
            if run.window.cut:
                log.say(f"warning: {run.window.cut} boxes cut since the last line; raise data.max_boxes")
            run.window = Window()
        if stopping:
            return stopping
        if config.train.save_every and run.step % config.train.save_every == 0 and done < len(rates):
            save(run, log)
    return 0


@contextmanager
def _naming_last_good(run: Run) -> Iterator[None]:
    try:
        yield
    except WorkerDied as error:
        raise UserError(f"{error}; {run.last_good}; go on with --resume true") from error


def save(run: Run, log: RunLog | NoLog) -> None:
    """Write ``last.pt``, and before it the records that a run which goes on from it does not make again."""
    log.sync()
    run.save()


def validate(run: Run, records: Records, epoch: int, log: RunLog | NoLog, request: StopRequest) -> None:
    """Score the run's network after ``epoch`` epochs; keep it as ``best.pt`` if none was better."""
    group.copy_from_main(run.evaluated)  # statistics of batch norm may differ
    detector = Detector(run.evaluated.eval(), run.classes, run.config)
    alone = group.processes() == 1  # several could not agree on the batch to stop at

    def stop_here() -> None:
        run.stop_if(request.number if alone else 0)

    metrics, predictions = evaluate(detector, records, run.config.data, before_batch=stop_here)
    if group.is_main():
        write_evaluation(run.out, metrics, predictions, run.config.data, run.classes)
    log.evaluation(run.step, {"step": run.step, "epoch": epoch} | metrics)
    run.to_evaluate = False
    score = metrics["AP"] or 0.0
    log.say(f"epoch {epoch}: AP {score:.3f}  AP50 {metrics['AP50'] or 0.0:.3f}")
    if score > run.best:
        run.best, run.best_epoch = score, epoch
        run.save_best()


def make_step(
    run: Run, device: torch.device, graph_tools: GraphTools | None, say: Callable[[str], None]
) -> Step:
    """The training step of a run, compiled or captured as its config says. say: told of each capture."""
    forward_loss = _forward_loss(run, device)
    if graph_tools:
        return CapturedStep(run, forward_loss, graph_tools, say)
    return functools.partial(train_step, run, forward_loss)


def _forward_loss(run: Run, device: torch.device) -> Callable[[Tensor, Boxes], LossTerms]:
    forward_loss = ForwardLoss(run.model, run.config.objective, run.precision)
    if run.config.train.compile:
        compile_forward_loss(forward_loss, run.config.train.compile_backend)
    return group.averaging(forward_loss, device, buffers=not run.config.model.frozen_norm)


def _start_log(run: Run, last_step: int, console: Console, command: str) -> RunLog | NoLog:
    if not group.is_main():
        return NoLog()
    try:
        for folder in (run.out, run.last_pt.parent):
            remove_leftovers(folder)
        text = yaml.safe_dump(to_dict(run.config), sort_keys=False)
        write_text(run.out / "config.yaml", text)
        note_command(run.out, run.model.mean.device, command)
        return RunLog(run.out, last_step, run.step, console, evaluated=not run.to_evaluate)
    except OSError as error:
        raise UserError(
            f"{run.out}: cannot write the run folder ({error}); free some space, or give another --out"
        ) from error


def _parts(config: Config) -> str:
    """What the images of a step are made of, to follow their number; nothing where they are one batch."""
    rows, parts = config.data.batch_size, config.train.accumulate
    each = f"{parts} x {rows}" if parts > 1 else f"{rows}"
    return group.each(each) or (f" ({each})" if parts > 1 else "")


def _count(model: torch.nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M"


def memory_gb(device: torch.device) -> float:
    """Peak memory: of the accelerator, or of this process on a CPU; 0 where nothing tells it."""
    if is_accelerator(device):
        return peak_memory(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
