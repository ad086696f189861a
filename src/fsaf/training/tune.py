"""Search settings with Optuna: every trial is a training, in a run folder of its own."""

import json
import shlex
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from fsaf.config import Config, to_dict
from fsaf.errors import DataError, Stopped, UserError, WriteError, import_extra
from fsaf.files import write_text
from fsaf.keys import flatten
from fsaf.processes import group
from fsaf.recipe import build_config
from fsaf.text import columns, counted
from fsaf.training.callbacks import Callback
from fsaf.training.prepare import open_for_training
from fsaf.training.run import Run
from fsaf.training.space import SPACE, own_value
from fsaf.training.trainer import train

STUDY = "study.journal"
SETTINGS = "recipe.json"
"""Files of a study in its folder."""
LOOSE = ("out", "device", "data.workers", "log.every", "log.to")
"""Keys that may change while a study goes on."""
FREE_TRIALS = 4
"""Trials that are finished before the first one is pruned."""
FREE_PERCENT = 25
"""Share of a training, in percent, before which it is not pruned."""


class Watch(Callback):
    """Reports AP to Optuna, and ends a trial that is behind the median of the others.

    trial: of Optuna. pruned: Optuna's exception for it. say: prints a line.
    """

    def __init__(self, trial: Any, pruned: type[Exception], say: Callable[[str], None]) -> None:
        self.trial, self.pruned, self.say = trial, pruned, say
        self.best: float | None = None
        self.started = False

    def on_start(self, run: Run) -> None:
        self.run, self.started = run, True

    def on_evaluation(self, record: dict[str, Any]) -> None:
        if (score := record["AP"]) is None:
            return
        self.best = max(score, self.best or 0.0)
        # Trials differ in the number of epochs and steps, so they are compared by the share that is done.
        all_steps = self.run.config.train.epochs * (self.run.steps_per_epoch or 1)
        percent = round(100 * self.run.position / all_steps)
        self.say(f"trial {self.trial.number}: {percent}%  AP {score:.3f}")
        self.trial.report(score, percent)
        if self.trial.should_prune():
            raise self.pruned


class Study:
    """Trials of a recipe in folder ``out``; opened again, it continues.

    fixed: keys that are not searched. Raises UserError if Optuna is missing, if nothing is left to search, or
    if the folder is of another recipe.
    """

    def __init__(self, config: Config, out: Path, fixed: Sequence[str], console: Console) -> None:
        self.optuna = import_extra("optuna", extra="tune", need="fsaf tune needs")
        self.optuna.logging.set_verbosity(self.optuna.logging.ERROR)
        self.config, self.out, self.console = config, out, console
        self.searched = [key for key in SPACE if key not in fixed]
        if not self.searched:
            raise UserError(f"nothing is left to search; leave out one of {', '.join(SPACE)}")
        self.study = self._open()
        if (changed := self._changed_setting()) is not None:
            if self.done:
                raise UserError(
                    f"{out}: holds trials with another value of {changed}, which cannot be compared; give "
                    "another --out DIR"
                )
            (out / STUDY).unlink()
            self.study = self._open()
        self._write_settings()
        before = self.study.get_trials()
        # From another seed when resumed, or the sampler would draw what it has drawn already.
        self.study.sampler = self.optuna.samplers.TPESampler(seed=config.train.seed % 2**31 + len(before))
        self.study.pruner = self.optuna.pruners.MedianPruner(FREE_TRIALS, FREE_PERCENT)
        if not before:
            self.study.enqueue_trial({key: own_value(config, key) for key in self.searched})
        self._repeat_interrupted()

    @property
    def done(self) -> list[Any]:
        """Return the trials that have a result or were pruned."""
        state = self.optuna.trial.TrialState
        return self.study.get_trials(states=(state.COMPLETE, state.PRUNED))

    @property
    def best(self) -> Any | None:
        """Return the trial with the highest AP."""
        complete = self.study.get_trials(states=(self.optuna.trial.TrialState.COMPLETE,))
        return max(complete, key=lambda trial: trial.value, default=None)

    def search(self, trials: int, hours: float | None = None) -> None:
        """Train until there are ``trials`` of them in all; none starts after ``hours`` of this call."""
        self.trials, self.start, self.done_before = trials, time.monotonic(), len(self.done)
        if (left := trials - self.done_before) > 0:
            self.study.optimize(self._try, n_trials=left, timeout=None if hours is None else 3600 * hours)

    def _try(self, trial: Any) -> float:
        values = {key: SPACE[key](trial, key, self.config) for key in self.searched}
        out = self.out / f"trial-{trial.number:03}"
        self.say(f"trial {trial.number}{self._progress()}: {shown(values)}")
        options = [*(f"--{key}={value}" for key, value in values.items()), f"--out={out}", "--train.keep=1"]
        config = build_config(to_dict(self.config), options, where="the recipe")
        watch = Watch(trial, self.optuna.TrialPruned, self.say)
        out.mkdir(parents=True, exist_ok=True)
        score = None
        try:
            with (out / "log.txt").open("w", encoding="utf-8") as file:
                train(config, Console(file=file, width=200), callbacks=[watch], command="fsaf tune")
            score = watch.best or 0.0
        except self.optuna.TrialPruned:
            self.say(f"trial {trial.number}: pruned, since the median of the others was better by then")
            raise
        except Stopped as error:
            raise Stopped("stopped; the same command continues the study", error.signal) from error
        except (UserError, torch.OutOfMemoryError) as error:
            if not watch.started or isinstance(error, WriteError):
                raise
            self.say(f"trial {trial.number}: counts as AP 0: {error}")  # such as a loss that is not finite
            return 0.0
        finally:
            self._tidy(trial.number, score)
        return score

    def _progress(self) -> str:
        """Return which trial of how many this is, and the time left for the others."""
        done = len(self.done)
        text = f" ({done + 1} of {self.trials}"
        if new := done - self.done_before:
            seconds = (time.monotonic() - self.start) / new * (self.trials - done)
            text += f", ETA {timedelta(seconds=round(seconds))}"
        return f"{text})"

    def _tidy(self, number: int, score: float | None) -> None:
        """Remove the checkpoints of all trials but the best one, of which ``best.pt`` stays.

        number, score: of the trial that has just ended; None if it was pruned or failed.
        """
        best = self.best
        keep = best.number if best else None
        if score is not None and (best is None or score > best.value):
            keep = number
        for folder in self.out.glob("trial-*"):
            for file in (folder / "checkpoints").glob("*.pt"):
                if keep is None or folder.name != f"trial-{keep:03}" or file.name != "best.pt":
                    file.unlink()

    def _open(self) -> Any:
        backend = self.optuna.storages.journal
        file = str(self.out / STUDY)
        lock = backend.JournalFileOpenLock(file)
        storage = self.optuna.storages.JournalStorage(backend.JournalFileBackend(file, lock_obj=lock))
        return self.optuna.create_study(
            storage=storage, study_name="fsaf", direction="maximize", load_if_exists=True
        )

    def _settings(self) -> dict[str, Any]:
        settings = {key: value for key, value in flatten(to_dict(self.config)).items() if key not in LOOSE}
        return settings | {"the searched keys": self.searched}

    def _changed_setting(self) -> str | None:
        """Return the first setting that differs from those of the study in the folder."""
        file = self.out / SETTINGS
        before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        now = self._settings()
        return next((key for key in before if key in now and before[key] != now[key]), None)

    def _write_settings(self) -> None:
        if not (self.out / SETTINGS).is_file() or not self.done:
            write_text(self.out / SETTINGS, json.dumps(self._settings(), indent=1))

    def _repeat_interrupted(self) -> None:
        """Try the values of trials again that were stopped or killed."""
        state = self.optuna.trial.TrialState
        trials = self.study.get_trials()
        repeated = {trial.user_attrs.get("repeats") for trial in trials}
        for trial in trials:
            if trial.state == state.RUNNING:
                self.study.tell(trial.number, state=state.FAIL)
            if trial.state in (state.RUNNING, state.FAIL) and trial.number not in repeated:
                self.study.enqueue_trial(trial.params, user_attrs={"repeats": trial.number})

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def table(self) -> str:
        """Return the trials, the best first, as a table."""
        ordered = sorted(self.done, key=lambda trial: (trial.state.name, -(trial.value or 0.0)))
        rows = []
        for trial in ordered:
            score = f"{trial.value:.3f}" if trial.state.name == "COMPLETE" else "pruned"
            values = (_text(trial.params[key]) for key in self.searched)
            rows.append((str(trial.number), score, *values))
        return columns([("trial", "AP", *self.searched), *rows], "r")


def shown(values: dict[str, Any]) -> str:
    """Return settings as text for people."""
    return ", ".join(f"{key} {_text(value)}" for key, value in values.items())


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def tune(
    config: Config,
    out: Path,
    *,
    trials: int = 20,
    hours: float | None = None,
    fixed: Sequence[str] = (),
    words: Sequence[str] = (),
    console: Console | None = None,
) -> str:
    """Search settings around ``config``; return the command that trains with the best ones.

    trials: of the study in all, those of earlier calls included. hours: start no trial after them. fixed:
    keys that are not searched. words: recipe and options that the command begins with. Raises UserError as
    ``train`` and ``Study`` do.
    """
    console = console or Console()
    import_extra("optuna", extra="tune", need="fsaf tune needs")
    _, validation, _ = open_for_training(config)
    if validation is None or not any((~image.crowd).any() for image in validation.images):
        raise DataError("fsaf tune compares trials by AP, and there is nothing to evaluate on")
    out.mkdir(parents=True, exist_ok=True)
    with group.locked(out, "tune"):
        study = Study(config, out, fixed, console)
        study.search(trials, hours)
    if (best := study.best) is None:
        raise UserError(f"{out}: no trial was finished; give more --trials or --hours")
    folder = out / f"trial-{best.number:03}"
    study.say(f"\n{study.table()}\n\nbest of {counted(len(study.done), 'trial')}: {best.number}, AP "
              f"{best.value:.3f}, in {folder}; train with its settings:")  # fmt: skip
    options = [word for key, value in best.params.items() for word in (f"--{key}", _text(value))]
    return shlex.join(["fsaf", "train", *words, *options, "--out", str(out / "best")])
