"""Training: the loop, from top to bottom."""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml
from rich.console import Console

from fsaf.config import Config, to_dict
from fsaf.data.workers import Loader, WorkerDied, check_main_guard
from fsaf.device import copy_images, memory_gb
from fsaf.errors import UserError, WriteError
from fsaf.files import remove_leftovers, write_text
from fsaf.processes import group
from fsaf.processes.join import join
from fsaf.processes.stop import StopRequest
from fsaf.run_folder.commands import note_command
from fsaf.scoring.table import format_classes
from fsaf.text import counted, printable
from fsaf.training.callbacks import Callback, Guarded
from fsaf.training.ending import note_time, why_ended
from fsaf.training.log import NoLog, RunLog
from fsaf.training.loggers import check_loggers, make_loggers
from fsaf.training.place import follow
from fsaf.training.preview import keep_preview
from fsaf.training.run import Run
from fsaf.training.session import Session, Step, make_step, open_session
from fsaf.training.step import FirstSteps
from fsaf.training.validate import validate
from fsaf.training.window import Window

AFTER_EPOCH = 60.0
"""Seconds after a checkpoint from which on the end of an epoch is worth another."""


def train(
    config: Config,
    console: Console | None = None,
    *,
    callbacks: Sequence[Callback] = (),
    command: str = "fsaf.train(config)",
) -> Path:
    """Train a detector and return the run folder.

    >>> config = load_recipe("lite0", ["--data.root=DATA", "--out=runs/mine"])
    >>> fsaf.train(config)
    PosixPath('runs/mine')

    Under torchrun or ``fsaf train --devices`` it runs as one of several processes. console: show progress
    there. callbacks: called on the way, in the main process. command: recorded in ``commands.jsonl`` of the
    run folder.
    Raises UserError for mistakes in config or data, and if the loss is no longer finite; Stopped after Ctrl-C
    or SIGTERM, with everything saved.
    """
    check_main_guard()
    if config.out is None:
        raise UserError("out is not set; give the run folder with --out FOLDER")
    with join(config.device) as device, group.locked(Path(config.out), "train") as lock:
        group.from_main(lambda: check_loggers(config.log.to))
        session = open_session(config, device, processes=group.processes(), rank=group.rank())
        session.run.lock = lock
        _train(session, console or Console(), callbacks, command)
        return session.run.out


def _train(session: Session, console: Console, callbacks: Sequence[Callback], command: str) -> None:
    run, validation = session.run, session.validation
    per_epoch, last_step = session.steps_per_epoch, session.last_step
    if session.finished:
        for line in [*run.notes, _finished(session)] if group.is_main() else []:
            console.print(printable(line), highlight=False, markup=False, soft_wrap=True)
        return
    every = run.config.train.evaluate_every
    classes = ""
    log_of_run = _start_log(run, last_step, console, command)  # from here on files are written
    with log_of_run as log, StopRequest() as request, _naming_last_good(run):
        for line in _introduction(session):
            log.say(line)
        if group.is_main():
            session.loader.on_first = lambda batch: keep_preview(session, batch, log.say)
        loggers = make_loggers(run.config.log.to)
        log.begin(run, [*callbacks, *(Guarded(name, each, log.say) for name, each in loggers.items())])
        step = make_step(run, session.tools, log.say)
        first_steps = FirstSteps(log.say) if run.config.train.compile else None
        while not session.finished:
            if not run.to_evaluate:
                epoch, start = divmod(run.position, per_epoch)
                session.sampler.set_epoch(epoch, start)
                steps = min(per_epoch - start, last_step - run.step)
                rates = [session.rate(i) for i in range(steps)]
                stopping = train_steps(run, session.loader, step, rates, epoch + 1, log, request, first_steps)
                whole = run.position % per_epoch == 0
                due = whole and every and (epoch + 1) % every == 0
                run.to_evaluate = bool(validation and (due or session.over))
                if whole and run.config.train.keep_every and (epoch + 1) % run.config.train.keep_every == 0:
                    follow(run, log)
                    run.save_epoch(epoch + 1)
                if stopping or session.finished or is_due(run, AFTER_EPOCH):
                    save(run, log)
                run.stop_if(stopping)
            if run.to_evaluate and validation:
                metrics = validate(run, validation, session.epoch, log, request, last=session.over)
                classes = format_classes(metrics)
                note_time(run)
                if session.finished or is_due(run, AFTER_EPOCH):
                    save(run, log)
        for line in classes.splitlines():
            log.say(line)
        if why := why_ended(run):
            log.say(f"training ends early, after step {run.step} of {last_step}: {why}")
        log.say(f"trained; everything is in {run.out}; {_result(session)}")


def _introduction(session: Session) -> list[str]:
    """Return the lines that training prints first."""
    run, records, batch = session.run, session.records, session.batch
    config = run.config
    scaled = f" = {config.optim.lr:g} x {batch} / {config.optim.base_batch}" if config.optim.scale_lr else ""
    return [
        f"{counted(len(records.images), 'image')}, {counted(len(records.classes), 'class', 'classes')} from "
        f"{records.source}; {counted(session.steps_per_epoch, 'step')} an epoch of {counted(batch, 'image')}"
        f"{_parts(config)}; "
        f"{_count(run.model)} weights, {config.train.precision}, on {run.model.mean.device}; "
        f"run folder {run.out}",
        f"peak learning rate {session.peak_rate:g}{scaled}",
        *([_resuming(session)] if run.resumed else []),
        *run.notes,
        *(f"note: {note}" for note in session.notes),
    ]


def _resuming(session: Session) -> str:
    """Return the line that says where a resumed run goes on."""
    run, epochs = session.run, session.run.config.train.epochs
    epoch = run.position // session.steps_per_epoch + 1
    at = f"before the evaluation of epoch {session.epoch}" if run.to_evaluate else f"in epoch {epoch}"
    return f"resuming after step {run.step}, {at} of {epochs}; {_best(run)}"


def _finished(session: Session) -> str:
    """Return the line about a run that has nothing left to do."""
    run, epochs = session.run, session.run.config.train.epochs
    if run.ended:
        done, key = why_ended(run), "--train.hours" if run.timed_out else "--train.patience"
    elif run.position >= session.all_steps:
        done, key = "the epoch is done" if epochs == 1 else f"all {epochs} epochs are done", "--train.epochs"
    else:
        done, key = f"train.max_steps = {run.config.train.max_steps} is done", "--train.max_steps"
    where = f"fsaf train --resume {shlex.quote(str(run.out))} {key} N"
    return f"finished: {done}, {counted(run.step, 'step')}; {_best(run)}; train longer with: {where}"


def _result(session: Session) -> str:
    """Return the end of the last line: which network to use, and its AP."""
    run = session.run
    if session.validation is None:
        return f"not evaluated: {run.last_pt}"
    if run.best is None:
        return f"AP is undefined, so best.pt is the latest: {run.best_pt}"
    return f"{_best(run)} of {run.config.train.epochs}: {run.best_pt}"


def _best(run: Run) -> str:
    return "no AP yet" if run.best is None else f"best AP {run.best:.3f}, of epoch {run.best_epoch}"


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
    """Train on the next ``len(rates)`` batches, all of epoch ``epoch`` (from 1).

    Ends early at a signal, whose number it returns, else 0; and if the time is up (``note_time``).
    """
    config, device = run.config, run.model.mean.device
    run.model.train()
    run.window.start_clock()
    # Several processes cannot save while one of them waits: the others are in the middle of a step.
    batches = loader.batches(lambda: request.number if group.processes() == 1 else 0, log.say)
    for done, rate in enumerate(rates, start=1):
        waiting = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            assert request.number
            return request.number
        run.window.data_seconds += time.perf_counter() - waiting
        started = time.perf_counter()
        images, boxes = copy_images(batch.images, device), batch.boxes.to(device)
        terms, norm = step(images, boxes, rate)
        if first_steps:
            first_steps.note(images[: config.data.batch_size], time.perf_counter() - started)
        run.window.add(batch, terms, norm, rate)
        log.advance(run.step)
        stopping = request.agreed()
        recorded = done == len(rates) or run.step % config.log.every == 0
        timed_out = note_time(run, ask=recorded)
        if recorded or timed_out:
            means = run.window.read(run.blame())
            run.note_loss(means["loss"])
            if not run.is_healthy:
                log.once(
                    "warning", f"{run.diverges} in step {run.step}, at the rate {rate:.3g}; {run.last_good}"
                )
            record = {"step": run.step, "epoch": epoch, "lr": rate} | means
            record |= {"loss_scale": run.precision.loss_scale, "memory_gb": memory_gb(device)}
            log.step(run.step, record, config.train.epochs)
            if run.window.cut:
                cut = counted(run.window.cut, "box", "boxes")
                log.say(f"warning: {cut} cut since the last line; raise data.max_boxes")
            run.window = Window()
        if stopping or timed_out:
            return stopping
        if done < len(rates) and is_due(run, 60 * config.train.save_minutes, ask=recorded):
            save(run, log)
    return 0


@contextmanager
def _naming_last_good(run: Run) -> Iterator[None]:
    try:
        yield
    except WorkerDied as error:
        resume = f"; {run.how_to_resume}" if run.good else ""
        raise UserError(f"{error}; {run.last_good}{resume}") from error


def save(run: Run, log: RunLog | NoLog) -> None:
    """Write ``last.pt``. Before it, sync the records, which a resumed run does not make again."""
    follow(run, log)
    log.sync()
    try:
        run.save()
    except WriteError:
        if group.processes() > 1 or run.lock is None or run.lock.place() == run.out:
            raise
        follow(run, log)  # the run folder was moved or deleted meanwhile
        run.save()
    log.checkpoint(run.last_pt)


def is_due(run: Run, seconds: float, ask: bool = True) -> bool:
    """Return True after every ``train.save_every`` steps, and ``seconds`` after the last checkpoint.

    All processes get the same answer. ask: False in steps in which several processes must not wait.
    """
    if run.config.train.save_every and run.step % run.config.train.save_every == 0:
        return True
    if group.processes() > 1 and not ask:
        return False
    return group.from_main(lambda: time.monotonic() - run.saved_at >= seconds)


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
    """Return how the images of a step are split, to follow their number; empty if they are one batch."""
    rows, parts = config.data.batch_size, config.train.accumulate
    each = f"{parts} x {rows}" if parts > 1 else f"{rows}"
    return group.each(each) or (f" ({each})" if parts > 1 else "")


def _count(model: torch.nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M"
