"""Checkpoint files: what they hold, written all or nothing, read without running code."""

import contextlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsaf.config import Config, to_dict
from fsaf.data.records import Classes
from fsaf.errors import UserError

FORMAT = "fsaf"
VERSION = 1


def make_checkpoint(
    model: dict[str, Tensor], classes: Classes, config: Config, training: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A checkpoint: weights for inference, class names and ids, the config, and what resuming needs."""
    checkpoint = {
        "format": FORMAT,
        "version": VERSION,
        "config": to_dict(config),
        "classes": {"names": list(classes.names), "ids": list(classes.ids)},
        "model": model,
    }
    if training is not None:
        checkpoint["training"] = training
    return checkpoint


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write beside ``path``, sync, rename: a crash leaves the old file or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot write the checkpoint ({error}); free some space and resume"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # there may not even be a folder
            temporary.unlink()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours onto the CPU.

    Raises UserError where the file is missing, damaged, or something else.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        first = str(error).split("\n")[0]
        raise UserError(f"{path}: not a readable checkpoint, perhaps cut short ({first})") from error
    if isinstance(checkpoint, dict) and checkpoint.get("format") == FORMAT:
        version = checkpoint.get("version")
        if isinstance(version, int) and version > VERSION:
            raise UserError(f"{path}: written by a newer fsaf (format {version}); upgrade fsaf")
        if version == VERSION and _complete(checkpoint):
            return checkpoint
    raise UserError(f"{path}: not a checkpoint written by fsaf, or damaged")


def _complete(checkpoint: dict[str, Any]) -> bool:
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
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if missing or extra or wrong:
        first = (wrong or missing or extra)[0]
        detail = first
        if wrong:
            detail += f": {list(state[first].shape)} in the file, {list(wanted[first].shape)} in the model"
        raise UserError(
            f"{where}: does not fit the model: {len(wrong)} tensors of another shape, "
            f"{len(missing)} missing, {len(extra)} unknown ({detail}). "
            "Is it of another model or number of classes?"
        )
    model.load_state_dict(state)
