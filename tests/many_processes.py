"""Functions that tests run in several processes; importable, so that processes can be started with them."""

import dataclasses
import functools
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from fsaf import cli
from fsaf.data.batch import Batch, Boxes
from fsaf.data.readers.coco import read_coco
from fsaf.data.readers.splits import open_split
from fsaf.data.samples import Images
from fsaf.data.workers import make_loader
from fsaf.detection.detector import Detector
from fsaf.objective.objective import objective
from fsaf.processes import group
from fsaf.processes.join import join
from fsaf.recipe import build_config
from fsaf.scoring.evaluate import evaluate
from fsaf.training import trainer
from fsaf.training.precision import Precision
from fsaf.training.session import make_forward_loss
from fsaf.training.start import start_run
from fsaf.training.window import Window
from synthetic import CLASSES, SeesBadly

FORK: Any = None
"""Start processes from one that has imported everything: four take a second, not half a minute."""
if "forkserver" in multiprocessing.get_all_start_methods():
    FORK = multiprocessing.get_context("forkserver")
    FORK.set_forkserver_preload(
        ["fsaf.training.trainer", "torch.distributed.elastic.multiprocessing", "many_processes", "kills"]
    )


def gradients(values: dict[str, Any], normalise: str) -> dict[str, torch.Tensor]:
    """Return the gradients of a recipe's first batch after averaging, set up as in training."""
    values = {**values, "objective": {"normalise": normalise}}
    config = build_config(values, where="the test's recipe")
    with join("cpu") as device:
        records = open_split(config.data, "train")
        run = start_run(config, records.classes, device)
        forward_loss = make_forward_loss(run)
        loader, _ = make_loader(
            Images(records, config.data, augment=True),
            config.data.batch_size,
            workers=0,
            train=True,
            rank=group.rank(),
            world=group.processes(),
        )
        batch = next(iter(loader))
        run.model.train()
        forward_loss(batch.images, batch.boxes).loss.backward()
        return {name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None}


def write_gradients(out: Path, values: dict[str, Any], normalise: str) -> None:
    """Write the ``gradients`` of each process to its own file."""
    torch.save(gradients(values, normalise), out / f"{normalise}-{os.environ['RANK']}.pt")


def write_evaluation(out: Path, annotations: Path, images: Path, data: dict[str, Any]) -> None:
    """Write what ``evaluate`` returns to each process to its own file."""
    config = build_config({"data": data}, where="the test's recipe")
    with join("cpu"):
        detector = Detector(SeesBadly().eval(), CLASSES, config)
        found = evaluate(detector, read_coco(annotations, images), config.data)
    (out / f"{os.environ.get('RANK', 'alone')}.json").write_text(json.dumps(found))


def train_here(out: Path, values: dict[str, Any], kill: tuple[int, int] | None = None) -> None:
    """Train in folder ``out/RANK``, the base of relative paths; record images seen and the console.

    kill: (rank, step): that process dies at the start of that step, the first time.
    """
    rank, life = int(os.environ["RANK"]), group.restarts()
    here = out / str(rank)
    here.mkdir(exist_ok=True)
    os.chdir(here)
    seen: list[list[int]] = []
    add, step = Window.add, Precision.step

    def noting(self: Window, batch: Batch, *rest: Any) -> None:
        seen.append(batch.ids)
        add(self, batch, *rest)

    @functools.wraps(step)
    def dying(self: Precision, *args: Any) -> Any:
        if kill and rank == kill[0] and len(seen) + 1 == kill[1] and life == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args)

    Window.add, Precision.step = noting, dying  # type: ignore[method-assign]
    with (out / f"said-{rank}-{life}.txt").open("w") as said:
        trainer.train(build_config(values, where="the test's recipe"), Console(file=said, width=400))
    (out / f"seen-{rank}-{life}.json").write_text(json.dumps(seen))


def share_of_gradients(values: dict[str, Any], part: int, parts: int) -> dict[str, torch.Tensor]:
    """Return the gradients of rows ``part``, ``part + parts``, ... of a recipe's first batch alone."""
    config = build_config(values, where="the test's recipe")
    records = open_split(config.data, "train")
    run = start_run(config, records.classes, torch.device("cpu"))
    images = Images(records, config.data, augment=True)
    loader, _ = make_loader(images, config.data.batch_size, workers=0, train=True)
    batch = next(iter(loader))
    boxes = Boxes(*(field[part::parts] for field in batch.boxes))
    run.model.train()
    objective(run.model(batch.images[part::parts], boxes.sizes), boxes, config.objective).loss.backward()
    return {name: p.grad for name, p in run.model.named_parameters() if p.grad is not None}


def equal(left: Any, right: Any) -> bool:
    """Compare bit for bit, through dataclasses, dictionaries, lists and tuples."""
    if dataclasses.is_dataclass(left):
        return type(left) is type(right) and equal(vars(left), vars(right))
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right) and left.dtype is right.dtype
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def captured(folder: Path, function: Any, *arguments: Any) -> None:
    """Call a function, with all output of this process redirected to ``folder/RANK-RESTARTS.txt``."""
    name = f"{os.environ['RANK']}-{group.restarts()}.txt"
    file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(file, number)
    try:
        function(*arguments)
    finally:
        sys.stdout.flush()


def command(*arguments: str) -> None:
    """Run ``fsaf`` as a command and print its exit status."""
    print(f"status {cli.main(arguments)}")
