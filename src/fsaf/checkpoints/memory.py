"""Refuse files of ``torch.save`` that take much more memory than they have bytes."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsaf.errors import CheckpointError


def check_archive(path: Path) -> None:
    """Raise CheckpointError if a zip archive unpacks to more bytes than it has.

    ``torch.save`` does not compress. A deflated archive can unpack to a thousand times its size, and records
    that share their bytes to any size.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        records = file.infolist()
    packed = any(record.compress_type != zipfile.ZIP_STORED for record in records)
    if packed or sum(record.file_size for record in records) > path.stat().st_size:
        raise CheckpointError(
            f"{path}: is a compressed archive, which torch.save does not write, and is not read because it "
            "could fill the memory; if you trust the file, load it with torch.load and save it again"
        )


def check_storages(content: Any, path: Path) -> None:
    """Raise CheckpointError if a tensor in ``content`` claims more bytes than are stored for it.

    Strides of 0 make a tensor of any shape from one number. It takes no memory until it is copied.
    """
    waiting: list[tuple[str, Any]] = [("", content)]
    seen: set[int] = set()  # a pickle may hold a container that contains itself
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, (dict, list, tuple)):
            if id(value) not in seen:
                seen.add(id(value))
                items = value.items() if isinstance(value, dict) else enumerate(value)
                waiting += [(str(key), item) for key, item in items]
        elif isinstance(value, Tensor):
            if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
                raise CheckpointError(f"{path}: tensor {name} is not a plain tensor with stored values")
            claimed, stored = value.numel() * value.element_size(), value.untyped_storage().nbytes()
            if claimed > stored:
                raise CheckpointError(
                    f"{path}: tensor {name} of shape {list(value.shape)} takes {claimed:,} bytes, but "
                    f"{stored:,} are stored; if you trust the file, save its tensors again as copies (clone)"
                )
