"""Checkpoint files of every format that fsaf reads and writes; ``fsaf.checkpoints.format`` has our own."""

from pathlib import Path
from typing import Any, Literal, get_args

from fsaf.checkpoints.format import FORMAT, load_checkpoint, save_checkpoint
from fsaf.checkpoints.hub import fetch, read_folder
from fsaf.checkpoints.mmdetection import export_checkpoint, import_checkpoint
from fsaf.checkpoints.pickles import load_plain
from fsaf.checkpoints.safetensors import is_safetensors, read_safetensors, write_safetensors
from fsaf.errors import UserError

Format = Literal["fsaf", "safetensors", "mmdetection"]
SUFFIXES: dict[str, Format] = {".pt": "fsaf", ".safetensors": "safetensors", ".pth": "mmdetection"}
"""What a file name means when writing; reading goes by content."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of any format, in the form of ``fsaf.checkpoints.format.make_checkpoint``, on the CPU.

    Formats: our ``.pt``, our safetensors, MMDetection 2.x and 3.x FSAF; told apart by content. A folder is
    one for the Hugging Face hub, ``hf:USER/NAME`` a repository there (``fsaf.checkpoints.hub``).
    No code in the file is run. Raises UserError where it is missing, damaged or something else.
    """
    if is_on_hub(path) or path.is_dir():
        return read_folder(fetch(path.as_posix()) if is_on_hub(path) else path)
    if path.is_file() and is_safetensors(path):
        return read_safetensors(path)
    content = load_plain(path)
    if isinstance(content, dict) and content.get("format") == FORMAT:
        return load_checkpoint(path)
    return import_checkpoint(content, str(path))


def is_on_hub(path: Path) -> bool:
    """Whether ``path`` is ``hf:USER/NAME``."""
    return path.as_posix().startswith("hf:")


def write_checkpoint(path: Path, checkpoint: dict[str, Any], format: Format | None = None) -> None:
    """Write one of our checkpoints; ``format`` None goes by the suffix (``SUFFIXES``).

    The other formats leave training state out. Raises UserError where the suffix says nothing, or the network
    has no place in MMDetection.
    """
    format = format or SUFFIXES.get(path.suffix.lower())
    if format == "fsaf":
        save_checkpoint(path, checkpoint)
    elif format == "safetensors":
        write_safetensors(path, checkpoint)
    elif format == "mmdetection":
        save_checkpoint(path, export_checkpoint(checkpoint, str(path)))
    else:
        suffixes = ", ".join(f"{suffix} ({kind})" for suffix, kind in SUFFIXES.items())
        kinds = ", ".join(get_args(Format))
        raise UserError(f"{path}: give a name that ends in {suffixes}, or one of the formats {kinds}")


def convert(source: Path, target: Path, format: Format | None = None) -> dict[str, Any]:
    """Read ``source``, write ``target``; returns what was read."""
    checkpoint = read_checkpoint(source)
    write_checkpoint(target, checkpoint, format)
    return checkpoint
