"""Checkpoint files of fsaf: what they hold, written whole or not at all, read without running code."""

import contextlib
import math
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeGuard, get_type_hints

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from fsaf.checkpoints.classes import read_classes
from fsaf.checkpoints.pickles import load_plain
from fsaf.checkpoints.structure import fits
from fsaf.checkpoints.weights import check_values
from fsaf.config import Config, to_dict
from fsaf.data.records import Classes
from fsaf.device import to_host
from fsaf.errors import CheckpointError, UserError
from fsaf.files import sync, whole
from fsaf.recipe import build_config

FORMAT = "fsaf"
VERSION = 1


@dataclass(kw_only=True)
class Training:
    """Everything that resuming needs besides the network that is evaluated."""

    best: float | None = None
    """Highest AP so far; None if none is defined."""
    best_epoch: int
    to_evaluate: bool = False
    """True if the epoch that has just ended is yet to be evaluated."""
    optimizer: dict[str, Any]
    """State dict of the optimizer."""
    scaler: dict[str, Any]
    """State dict of the loss scale."""
    processes: list[dict[str, Any]]
    """For each process: state of random numbers, and the steps since the last record."""
    model: dict[str, Tensor] | None = None
    """The weights that train, if ``Checkpoint.weights`` is their moving average."""
    average_updates: int | None = None
    """Updates of the moving average; None if there is none."""
    position: int | None = None
    """How far training has come, in steps of ``steps_per_epoch`` an epoch; None for as many as were made."""
    steps_per_epoch: int | None = None
    images_per_step: int | None = None
    data: dict[str, str] = field(default_factory=dict)
    """Fingerprints of the splits, by key: ``data.train`` and ``data.val``."""
    waited: int = 0
    """Evaluations since the last higher AP."""
    timed_out: bool = False
    """True if training has ended because of ``train.hours``."""
    losses: dict[str, float] = field(default_factory=dict)
    """Mean losses by name: of the first record, of the lowest, and the last."""


@dataclass(kw_only=True)
class Checkpoint:
    """A detector, and the state that resuming its training needs."""

    config: Config
    classes: Classes
    weights: dict[str, Tensor]
    """State dict of the network that is evaluated."""
    step: int | None = None
    """Steps of training behind the weights; None if unknown."""
    seconds: float = 0.0
    """Time of training behind the weights, evaluations included; 0 if unknown."""
    training: Training | None = None
    """None if the file contains only the network."""
    launch: str = ""
    """The launcher's name for the launch that wrote the checkpoint."""


def header(config: Config, classes: Classes) -> dict[str, Any]:
    """Return the description of a network that files contain, as plain values."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "config": to_dict(config),
        "classes": {"names": list(classes.names), "ids": list(classes.ids)},
    }


def read_header(content: Any, where: str) -> tuple[Config, Classes]:
    """Return config and classes from the result of ``header``, read from ``where``.

    Raises UserError if something is missing or wrong, or a newer version has written it.
    """
    if not fits(content, dict[str, Any]) or not is_ours(content):
        raise _not_ours(where)
    version, classes = content.get("version"), content.get("classes")
    if fits(version, int) and version > VERSION:
        raise CheckpointError(f"{where}: written by a newer fsaf (format {version}); upgrade fsaf")
    if not fits(version, int) or version != VERSION or not fits(classes, dict[str, Any]):
        raise _not_ours(where)
    config = content.get("config")
    if not isinstance(config, dict):
        raise _not_ours(where)
    return build_config(config, where=where), read_classes(classes.get("names"), classes.get("ids"), where)


def is_ours(content: Any) -> TypeGuard[dict[str, Any]]:
    """Return True if ``content`` of a file says that fsaf has written it."""
    name = content.get("format") if isinstance(content, dict) else None
    return isinstance(name, str) and name == FORMAT


def _not_ours(where: str) -> UserError:
    return CheckpointError(f"{where}: not a checkpoint written by fsaf, or damaged")


def to_content(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return ``checkpoint`` as a file stores it: plain containers, and tensors on the CPU."""
    content = header(checkpoint.config, checkpoint.classes) | {"model": checkpoint.weights}
    if checkpoint.step is not None:
        content["training"] = {"step": checkpoint.step}
    if (training := checkpoint.training) is not None:
        values = {each.name: getattr(training, each.name) for each in fields(training)}
        content["launch"] = checkpoint.launch
        content["training"] = {"step": checkpoint.step, "seconds": checkpoint.seconds} | {
            key: value for key, value in values.items() if value is not None
        }
    # Copy views: torch.save writes all of the memory that a view is part of.
    return tree_map_only(Tensor, to_host, content)


def from_content(content: Any, where: str) -> Checkpoint:
    """Return the checkpoint that ``to_content`` turned into ``content``, read from ``where``.

    Raises UserError as ``read_header`` and ``check_values``, and for values of the wrong type.
    """
    config, classes = read_header(content, where)
    state, launch = content.get("training"), content.get("launch", "")
    if state is None:
        state = {}
    if not fits(state, dict[str, Any]) or not isinstance(launch, str):
        raise _not_ours(where)
    step = state.get("step")
    if not fits(step, int | None) or (step or 0) < 0:
        raise _not_ours(where)
    seconds = state.get("seconds", 0.0)
    if not fits(seconds, float) or not 0 <= seconds < math.inf:
        raise _not_ours(where)
    return Checkpoint(
        config=config,
        classes=classes,
        weights=check_values(content.get("model"), where),
        step=step,
        seconds=seconds,
        training=_training(state, where) if "optimizer" in state else None,
        launch=launch,
    )


def _training(state: dict[str, Any], where: str) -> Training:
    """Return the training state of a file. Raises CheckpointError if a part is missing or of a wrong type."""
    kinds = get_type_hints(Training)
    values = {"processes": [], **{key: value for key, value in state.items() if key in kinds}}
    lowest = {"best": -1, "steps_per_epoch": 1, "images_per_step": 1}
    wrong = [key for key, value in values.items() if not fits(value, kinds[key])]
    wrong += [key for key, value in values.items() if fits(value, int) and value < lowest.get(key, 0)]
    if wrong:
        raise CheckpointError(f"{where}: its training state is damaged: {', '.join(wrong)}")
    if values.get("model") is not None:
        values["model"] = check_values(values["model"], where)
    try:
        return Training(**values)
    except TypeError as error:  # a part is missing
        raise _not_ours(where) from error


def save_checkpoint(path: Path, checkpoint: Checkpoint, keep: int = 1) -> None:
    """Write beside ``path``, sync, rename: a crash leaves the old file or the new one, whole.

    keep: number of checkpoints that stay: ``last.pt``, the one before it as ``last-1.pt``, and so on.
    Raises WriteError if the file cannot be written. Existing files stay.
    """
    save_content(path, to_content(checkpoint), keep)


def save_content(path: Path, content: dict[str, Any], keep: int = 1) -> None:
    """``save_checkpoint`` for plain containers and tensors of any format."""
    with whole(path) as draft:
        try:
            with draft.open("wb") as file:
                torch.save(content, file)
        except RuntimeError as error:  # PyTorch hides the error of the file behind its own
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        sync(draft)
        _step_back(path, keep)  # only now that the new one is on the disk


def _step_back(path: Path, keep: int) -> None:
    """Keep ``last.pt`` also as ``last-1.pt``, that as ``last-2.pt``, ...; ``path`` exists all the time."""
    for i in range(keep - 1, 0, -1):
        source = _earlier(path, i - 1)
        if not source.is_file():
            continue
        target = _earlier(path, i)
        if i > 1:
            source.replace(target)
            continue
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
        try:
            os.link(source, target)
        except OSError:  # a file system without second names
            source.replace(target)


def _earlier(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}") if number else path


def checkpoints_at(path: Path) -> list[Path]:
    """Return ``path`` and the checkpoints kept from before it, newest first; only those that exist."""
    found = {0: path} if path.is_file() else {}
    for other in path.parent.glob(f"{path.stem}-*{path.suffix}"):
        if match := re.fullmatch(rf"{re.escape(path.stem)}-(\d+)", other.stem):
            found[int(match[1])] = other
    return [found[number] for number in sorted(found)]


def load_newest(path: Path) -> tuple[Checkpoint, Path, list[str]]:
    """Return the newest whole checkpoint of ``checkpoints_at(path)``, its file, and the faults of newer ones.

    Raises UserError, with the fault of each file, if none is whole.
    """
    faults: list[str] = []
    for candidate in checkpoints_at(path):
        try:
            return load_checkpoint(candidate), candidate, faults
        except UserError as error:
            faults.append(str(error))
    raise CheckpointError("; ".join(faults) or f"{path}: no such checkpoint")


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of fsaf's own format onto the CPU.

    Raises UserError if the file is missing, damaged, or something else.
    """
    return from_content(load_plain(path), str(path))
