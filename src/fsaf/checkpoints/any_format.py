"""Read and write checkpoint files of every format; ``fsaf.checkpoints.format`` is fsaf's own."""

from pathlib import Path
from typing import Literal, get_args

from fsaf.checkpoints.format import Checkpoint, from_content, is_ours, save_checkpoint, save_content
from fsaf.checkpoints.hub import PREFIX, fetch, read_folder
from fsaf.checkpoints.mmdetection import export_checkpoint, import_checkpoint
from fsaf.checkpoints.pickles import load_plain
from fsaf.checkpoints.published import PUBLISHED, fetch_published, is_published
from fsaf.checkpoints.safetensors import is_safetensors, read_safetensors, write_safetensors
from fsaf.checkpoints.weights import check_network
from fsaf.errors import CheckpointError, UserError
from fsaf.text import nearest

Format = Literal["fsaf", "safetensors", "mmdetection"]
SUFFIXES: dict[str, Format] = {".pt": "fsaf", ".safetensors": "safetensors", ".pth": "mmdetection"}
"""Format by file name, for writing; reading goes by content."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint of any format onto the CPU.

    Formats: fsaf's ``.pt`` and safetensors, FSAF of MMDetection 2.x and 3.x, recognised by content; a folder
    for the Hugging Face hub, or ``hf:USER/NAME``, a repository there (``fsaf.checkpoints.hub``); the name of
    a published checkpoint (``fsaf.checkpoints.published``); a run folder, for its best checkpoint.
    No code in the file is run. The weights are finite and fit the network of the config. Raises UserError if
    the file is missing, damaged or something else.
    """
    path = local(path)
    checkpoint = _read(path)
    check_network(checkpoint.config.model, len(checkpoint.classes), checkpoint.weights, str(path))
    return checkpoint


def _read(path: Path) -> Checkpoint:
    if path.is_dir():
        return read_folder(path)
    if path.is_file() and is_safetensors(path):
        return read_safetensors(path)
    content = load_plain(path)
    if is_ours(content):
        return from_content(content, str(path))
    return import_checkpoint(content, str(path))


def is_remote(path: Path) -> bool:
    """Return True if ``path`` is ``hf:USER/NAME`` or the name of a published checkpoint."""
    return path.as_posix().startswith(PREFIX) or is_published(path)


def local(path: Path) -> Path:
    """Return the file or folder that ``path`` stands for: a download, or the best checkpoint of a run folder.

    Raises UserError if it cannot be downloaded, if it is only nearly such a name, or if a run folder holds no
    checkpoint yet.
    """
    if is_remote(path):
        return fetch_published(str(path)) if is_published(path) else fetch(path.as_posix())
    near = nearest(str(path), PUBLISHED)
    if near and not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint{near}")
    if not (path / "checkpoints").is_dir():
        return path
    for name in ("best.pt", "last.pt"):
        if (path / "checkpoints" / name).is_file():
            return path / "checkpoints" / name
    raise CheckpointError(f"{path}: the run has no checkpoint yet; it writes one after each epoch")


def write_checkpoint(path: Path, checkpoint: Checkpoint, format: Format | None = None) -> None:
    """Write a checkpoint; ``format`` None goes by the suffix (``SUFFIXES``).

    Formats other than ``fsaf`` leave training state out. Raises UserError if the suffix is unknown, or if
    MMDetection's FSAF cannot be such a network.
    """
    format = format or SUFFIXES.get(path.suffix.lower())
    if format == "fsaf":
        save_checkpoint(path, checkpoint)
    elif format == "safetensors":
        write_safetensors(path, checkpoint)
    elif format == "mmdetection":
        save_content(path, export_checkpoint(checkpoint, str(path)))
    else:
        suffixes = ", ".join(f"{suffix} ({kind})" for suffix, kind in SUFFIXES.items())
        kinds = ", ".join(get_args(Format))
        raise UserError(f"{path}: give a name that ends in {suffixes}, or one of the formats {kinds}")


def convert(source: Path, target: Path, format: Format | None = None) -> Checkpoint:
    """Read ``source``, write ``target``, and return the checkpoint."""
    checkpoint = read_checkpoint(source)
    write_checkpoint(target, checkpoint, format)
    return checkpoint
