"""A checkpoint as a safetensors file: weights, with config and classes as JSON in the header.

It has no training state. Any safetensors library reads the weights.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fsaf.checkpoints.format import Checkpoint, from_content, header, is_ours
from fsaf.errors import CheckpointError
from fsaf.files import whole
from fsaf.text import parse_json, short

KEY = "fsaf"
"""Entry of the header's metadata that holds the JSON."""


def is_safetensors(path: Path) -> bool:
    """Return True if the file starts as safetensors files do: eight bytes of length, then a JSON object."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
        return start[8:] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
    except OSError:  # reading it as another format reports the error
        return False


def write_safetensors(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint without training state, whole or not at all."""
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.weights.items()}
    about = header(checkpoint.config, checkpoint.classes)
    with whole(path) as draft:
        draft.write_bytes(save(tensors, metadata={"format": "pt", KEY: json.dumps(about)}))


def read_safetensors(path: Path) -> Checkpoint:
    """Read a file of ``write_safetensors``; raise UserError if it is damaged or from another program."""
    try:
        with safe_open(path, "pt") as file:
            about = parse_json((file.metadata() or {}).get(KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file, perhaps cut short ({short(error)})"
        ) from error
    if not is_ours(about):
        raise CheckpointError(
            f"{path}: safetensors without fsaf's header, so network and classes are not known; "
            "weights of a backbone alone go to --model.weights"
        )
    return from_content({**about, "model": tensors}, str(path))
