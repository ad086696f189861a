"""Checkpoint files: what they hold, written all or nothing, read without running code."""

import contextlib
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from fsaf.config import Config, to_dict
from fsaf.data.records import Classes
from fsaf.device import to_host
from fsaf.errors import CheckpointError, UserError
from fsaf.files import sync, whole

FORMAT = "fsaf"
VERSION = 1


def make_checkpoint(
    model: dict[str, Tensor], classes: Classes, config: Config, training: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A checkpoint: weights for inference, class names and ids, the config, and what resuming needs."""
    # Copies, since a file holds all of the memory that a view is part of.
    checkpoint = {
        "format": FORMAT,
        "version": VERSION,
        "config": to_dict(config),
        "classes": {"names": list(classes.names), "ids": list(classes.ids)},
        "model": tree_map_only(Tensor, to_host, model),
    }
    if training is not None:
        checkpoint["training"] = tree_map_only(Tensor, to_host, training)
    return checkpoint


def save_checkpoint(path: Path, checkpoint: dict[str, Any], keep: int = 1) -> None:
    """Write a checkpoint whole: a crash leaves the old file or the new one.

    keep: number of checkpoints to keep: ``last.pt``, then ``last-1.pt``, the one before, and so on.
    Raises WriteError if it cannot be written; the files that were there stay.
    """
    with whole(path) as draft:
        try:
            with draft.open("wb") as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # PyTorch hides the error of the file behind its own
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        sync(draft)
        _step_back(path, keep)  # only now that the new one is on the disk


def _step_back(path: Path, keep: int) -> None:
    """Make of ``last.pt`` also ``last-1.pt``, of that ``last-2.pt``, ...; ``path`` is there all the time."""
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
    """The checkpoint ``path`` and those kept from before it, the newest first; only those that exist."""
    found = {0: path} if path.is_file() else {}
    for other in path.parent.glob(f"{path.stem}-*{path.suffix}"):
        if match := re.fullmatch(rf"{re.escape(path.stem)}-(\d+)", other.stem):
            found[int(match[1])] = other
    return [found[number] for number in sorted(found)]


def load_newest(path: Path) -> tuple[dict[str, Any], Path, list[str]]:
    """The newest whole checkpoint of ``checkpoints_at(path)``, its file, and what is wrong with newer ones.

    Raises UserError, with what is wrong with each, where there is none.
    """
    faults: list[str] = []
    for candidate in checkpoints_at(path):
        try:
            return load_checkpoint(candidate), candidate, faults
        except UserError as error:
            faults.append(str(error))
    raise CheckpointError("; ".join(faults) or f"{path}: no such checkpoint")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours onto the CPU.

    Raises UserError where the file is missing, damaged, or something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        _check_sums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        first = str(error).split("\n")[0]
        raise CheckpointError(f"{path}: not a readable checkpoint, perhaps cut short ({first})") from error
    return check_content(checkpoint, path)


def check_content(checkpoint: Any, path: Path) -> dict[str, Any]:
    """What file ``path`` holds, if it is a checkpoint in the form of ``make_checkpoint``.

    Raises UserError where it is none, misses something, or is of a newer version.
    """
    if isinstance(checkpoint, dict) and checkpoint.get("format") == FORMAT:
        version = checkpoint.get("version")
        if isinstance(version, int) and version > VERSION:
            raise CheckpointError(f"{path}: written by a newer fsaf (format {version}); upgrade fsaf")
        if version == VERSION and is_complete(checkpoint):
            return checkpoint
    raise CheckpointError(f"{path}: not a checkpoint written by fsaf, or damaged")


def _check_sums(path: Path) -> None:
    """Compare each record with its CRC-32, which ``torch.save`` writes and ``torch.load`` does not read."""
    if not zipfile.is_zipfile(path):
        return  # torch.load knows what it is
    with zipfile.ZipFile(path) as file:
        if (record := file.testzip()) is not None:
            raise ValueError(f"the checksum of its record {record} does not match")


def is_complete(checkpoint: dict[str, Any]) -> bool:
    """Whether everything is there that reading a checkpoint relies on."""
    classes = checkpoint.get("classes")
    return (
        isinstance(checkpoint.get("config"), dict)
        and isinstance(checkpoint.get("model"), dict)
        and isinstance(classes, dict)
        and all(isinstance(classes.get(key), list) for key in ("names", "ids"))
        and len(classes["names"]) == len(classes["ids"])
    )


def checkpoint_classes(checkpoint: dict[str, Any]) -> Classes:
    """Class names and category ids of a checkpoint."""
    stored = checkpoint["classes"]
    return Classes(names=tuple(stored["names"]), ids=tuple(stored["ids"]))


def load_weights(model: torch.nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Fill ``model``, or say which tensors of file ``where`` do not fit. Raises UserError."""
    check_weights(model, state, where)
    model.load_state_dict(state)


def check_weights(model: torch.nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Raise UserError naming the tensors of file ``where`` that do not fit ``model``, perhaps on ``meta``."""
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if missing or extra or wrong:
        first = (wrong or missing or extra)[0]
        detail = first
        if wrong:
            detail += f": {list(state[first].shape)} in the file, {list(wanted[first].shape)} in the model"
        raise CheckpointError(
            f"{where}: does not fit the model: {len(wrong)} tensors of another shape, "
            f"{len(missing)} missing, {len(extra)} unknown ({detail}). "
            "Is it of another model or number of classes?"
        )
