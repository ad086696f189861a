"""Callbacks that pass the log on: ``log.to``. Libraries are imported only if asked for.

Each takes its server, project and login from the library's own environment variables.
"""

import csv
import io
import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsaf.config import to_dict
from fsaf.errors import RecipeError, import_extra
from fsaf.files import write_text
from fsaf.keys import flatten
from fsaf.run_folder.read import read_metrics
from fsaf.training.board import Board
from fsaf.training.callbacks import Callback, scalars
from fsaf.training.run import Run

PROJECT = "fsaf"
"""Name of project or experiment, unless the library's environment variable names another."""


def check_loggers(names: Sequence[str]) -> None:
    """Raise UserError, with the remedy, for a logger whose package or login is missing."""
    for name in names:
        if name in ("wandb", "mlflow", "trackio"):
            module = import_extra(name, extra=name, need=f"log.to {name} needs")
        if name == "wandb" and os.environ.get("WANDB_MODE", "online") == "online":
            try:
                module.login(verify=False)  # asks in a terminal
            except module.errors.UsageError as error:
                raise RecipeError(
                    "log.to wandb: there is no login; run `wandb login`, set WANDB_API_KEY, or set "
                    "WANDB_MODE=offline and upload later with `wandb sync`"
                ) from error


def make_loggers(names: Sequence[str]) -> dict[str, Callback]:
    """Return the loggers by name."""
    return {name: LOGGERS[name]() for name in names}


class TensorBoard(Callback):
    """Writes an event file in ``tensorboard/``."""

    def on_start(self, run: Run) -> None:
        self.board = Board(run.out / "tensorboard", run.step + 1)

    def on_step(self, record: dict[str, Any]) -> None:
        for name, value in scalars(record).items():
            self.board.add(name, value, record["step"])

    on_evaluation = on_step

    def on_end(self, error: BaseException | None) -> None:
        self.board.close()


class Csv(Callback):
    """Writes ``steps.csv`` and ``evaluations.csv``, the tables of ``metrics.jsonl``, at each checkpoint."""

    def on_start(self, run: Run) -> None:
        self.run = run

    def on_checkpoint(self, path: Path) -> None:
        records = read_metrics(self.run.out / "metrics.jsonl", [])
        for name, group, rows in zip(("steps", "evaluations"), ("train/", "val/"), records, strict=True):
            tables = [{key.removeprefix(group): v for key, v in scalars(row).items()} for row in rows]
            columns = list(dict.fromkeys(key for table in tables for key in table))
            text = io.StringIO()
            writer = csv.DictWriter(text, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(tables)
            write_text(self.run.out / f"{name}.csv", text.getvalue())

    def on_end(self, error: BaseException | None) -> None:
        self.on_checkpoint(self.run.last_pt)


class WandB(Callback):
    """Logs to Weights & Biases; a resumed run continues its run there."""

    def on_start(self, run: Run) -> None:
        wandb = import_extra("wandb")
        file = run.out / "wandb_run_id"
        if not file.is_file():
            write_text(file, uuid.uuid4().hex)
        self.wandb_run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.out.name,
            id=file.read_text(encoding="utf-8"),
            resume="allow",
            dir=str(run.out),
            config=to_dict(run.config),
            settings=wandb.Settings(console="off", silent=True),
        )

    def on_step(self, record: dict[str, Any]) -> None:
        self.wandb_run.log(scalars(record), step=record["step"])

    on_evaluation = on_step

    def on_end(self, error: BaseException | None) -> None:
        self.wandb_run.finish(exit_code=int(error is not None))


class MLflow(Callback):
    """Logs to MLflow; a resumed run continues its run there."""

    def on_start(self, run: Run) -> None:
        self.mlflow = import_extra("mlflow")
        file = run.out / "mlflow_run_id"
        if file.is_file():
            self.mlflow_run = self.mlflow.start_run(run_id=file.read_text(encoding="utf-8"))
            return
        self.mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        self.mlflow_run = self.mlflow.start_run(run_name=run.out.name)
        write_text(file, self.mlflow_run.info.run_id)
        self.mlflow.log_params(flatten(to_dict(run.config)))

    def on_step(self, record: dict[str, Any]) -> None:
        # A name may hold few signs there. Without waiting: a server that is slow must not slow the training.
        values = {re.sub(r"[^\w\-. /:]", "_", name): value for name, value in scalars(record).items()}
        self.mlflow.log_metrics(
            values, step=record["step"], synchronous=False, run_id=self.mlflow_run.info.run_id
        )

    on_evaluation = on_step

    def on_end(self, error: BaseException | None) -> None:
        self.mlflow.end_run("FAILED" if error else "FINISHED")


class Trackio(Callback):
    """Logs to trackio, by default on this machine; a resumed run continues its run there."""

    def on_start(self, run: Run) -> None:
        self.trackio_run = import_extra("trackio").init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=run.out.name,
            config=flatten(to_dict(run.config)),
            resume="allow",
            embed=False,
        )

    def on_step(self, record: dict[str, Any]) -> None:
        self.trackio_run.log(scalars(record), step=record["step"])

    on_evaluation = on_step

    def on_end(self, error: BaseException | None) -> None:
        self.trackio_run.finish()


LOGGERS: dict[str, type[Callback]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
    "trackio": Trackio,
    "csv": Csv,
}
