"""Refuse files of ``torch.save`` that take much more memory than they have bytes."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsaf.errors import CheckpointError

_NAME = b"\nbytearray\n"  # as pickles name a global: module and name, each on a line
_PART = 2**24


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


def check_pickle(path: Path) -> None:
    """Raise CheckpointError if a pickle in the file names ``bytearray``.

    PyTorch lets files call it, and ``bytearray(10**10)`` is 10 GB of zeros from a few bytes. Checkpoints of
    tensors have none.
    """
    if any(_NAME in part for part in _pickles(path)):
        raise CheckpointError(f"{path}: makes an object of type bytearray, which is not read")


def _pickles(path: Path) -> Iterator[bytes]:
    """Yield the pickles of a file, or all of a file that is no archive, in parts that overlap.

    ``torch.load`` takes a file for an archive if it starts as one; zipfile also if it only ends as one.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PK\3\4" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for record in archive.infolist():
                if record.filename.endswith(".pkl"):
                    yield archive.read(record)
        return
    with path.open("rb") as file:
        end = b""
        while part := file.read(_PART):
            yield end + part
            end = part[-len(_NAME) :]


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
