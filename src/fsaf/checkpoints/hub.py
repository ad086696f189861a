"""Detectors on the Hugging Face hub, and the folders that are uploaded there.

A folder holds ``model.safetensors``, the weights; ``config.json``, with recipe and classes under ``fsaf``;
and ``README.md``, the model card (``fsaf.reporting.card``).
"""

import json
import re
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from fsaf.checkpoints.download import sum_of
from fsaf.checkpoints.format import Checkpoint, from_content, header, is_ours, read_header
from fsaf.checkpoints.weights import check_network
from fsaf.config import Config, SplitConfig
from fsaf.errors import CheckpointError, UserError, WriteError
from fsaf.files import check_folder, whole_folder
from fsaf.text import parse_json, short

PREFIX = "hf:"
"""``hf:USER/NAME``, or ``hf:USER/NAME@REVISION``, is a repository on the hub (``any_format.is_remote``)."""
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
SHORT_CARD = """\
---
library_name: fsaf
pipeline_tag: object-detection
---

An object detector of fsaf. `fsaf.load` opens this folder, or `hf:USER/NAME` once it is on the hub.
"""


def write_folder(folder: Path, checkpoint: Checkpoint, card: str) -> None:
    """Write a checkpoint and its model card as a folder for the hub, whole or not at all.

    card: text of ``README.md``; empty for ``SHORT_CARD``. The recipe in the folder names no path of this
    machine. Raises UserError if ``folder`` is not empty, or if the weights do not fit the recipe.
    """
    check_free(folder)
    config, classes = checkpoint.config, checkpoint.classes
    check_network(config.model, len(classes), checkpoint.weights, "the checkpoint")
    about = {"fsaf": header(without_places(config), classes)}
    weights = {name: tensor.contiguous() for name, tensor in checkpoint.weights.items()}
    with whole_folder(folder) as draft:
        (draft / CARD).write_text(card or SHORT_CARD, encoding="utf-8")
        (draft / CONFIG).write_text(json.dumps(about, indent=2, sort_keys=True), encoding="utf-8")
        # Not save_file, which raises no OSError if the disk is full.
        (draft / WEIGHTS).write_bytes(save(weights, metadata={"format": "pt"}))


def check_free(folder: Path) -> None:
    """Raise UserError if ``folder`` is not empty: it may have a card that was edited by hand."""
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()):
        raise WriteError(f"{folder}: already exists; give another --out FOLDER, or remove it")


def without_places(config: Config) -> Config:
    """Return ``config`` without paths and device of this machine."""
    data = replace(config.data, root=None, train=_split(config.data.train), val=_split(config.data.val))
    weights = Path(config.model.weights).name
    model = replace(config.model, weights=weights)
    return replace(config, init=None, resume=False, out=None, device="auto", data=data, model=model)


def _split(split: SplitConfig) -> SplitConfig:
    return SplitConfig(annotations=_relative(split.annotations), images=_relative(split.images))


def _relative(path: str | None) -> str | None:
    return Path(path).name if path and Path(path).is_absolute() else path


def read_folder(folder: Path) -> Checkpoint:
    """Read the checkpoint that ``write_folder`` wrote.

    Raises UserError if something else wrote the folder, or if it is damaged.
    """
    try:
        content = parse_json((folder / CONFIG).read_text(encoding="utf-8"))
        about = content.get("fsaf") if isinstance(content, dict) else None
        if not is_ours(about):
            raise CheckpointError(
                f"{folder / CONFIG}: has no classes and recipe, so it is not a detector of fsaf; "
                "give a folder that fsaf publish wrote"
            )
        read_header(about, str(folder))  # before the weights, which may be large
        return from_content({**about, "model": load_file(folder / WEIGHTS)}, str(folder))
    except FileNotFoundError as error:
        name = Path(str(error.filename or folder / WEIGHTS)).name
        raise CheckpointError(
            f"{folder}: holds no {name}; give a checkpoint file, or a folder that fsaf publish has written"
        ) from error
    except UserError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: not a readable folder of a detector ({short(error)})") from error


def fetch(name: str) -> Path:
    """Download the repository ``hf:USER/NAME``, unless it is in the cache, and return its folder.

    Raises UserError if it cannot be downloaded, or if the weights are not those that the hub announced.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    try:
        folder = Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=[WEIGHTS, CONFIG])
        )
    except Exception as error:  # the client raises many kinds: offline, not found, not allowed, a bad name
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{name}: cannot be downloaded from the hub ({type(error).__name__}: {reason})"
        ) from error
    _check_sum(name, folder / WEIGHTS)
    return folder


def _check_sum(name: str, file: Path) -> None:
    """Raise CheckpointError, and remove the file from the cache, if it is not what its SHA-256 says.

    The client compares sizes alone. Its cache names large files by the sum that the hub announced.
    """
    stored = file.resolve()
    if re.fullmatch("[0-9a-f]{64}", stored.name) and sum_of(stored) != stored.name:
        stored.unlink()
        file.unlink()
        raise CheckpointError(
            f"{name}: {file.name} arrived damaged: its SHA-256 is not the one that the hub names. It was "
            "removed; run the command again"
        )


def upload(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload a folder to ``USER/NAME``, created if it does not exist, and return its address.

    Raises UserError if the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        address = HfApi().create_repo(repository, private=private, exist_ok=True)
        HfApi().upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload detector")
    except Exception as error:  # as above
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{repository}: not uploaded ({type(error).__name__}: {reason}); `hf auth login` logs in, and "
            f"`hf upload {repository} FOLDER` uploads a folder that is written"
        ) from error
    return str(address)
