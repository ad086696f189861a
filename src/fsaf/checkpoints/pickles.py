"""Read files of ``torch.save`` without running code in them."""

import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from fsaf.checkpoints.memory import check_archive, check_pickle, check_storages
from fsaf.errors import CheckpointError


class Inert:
    """Stand-in for objects that are not needed; ignores its arguments."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


_IGNORED = (
    "mmengine.logging.history_buffer.HistoryBuffer",  # the log of a 3.x run
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    "numpy.ndarray",
    "numpy.dtype",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "datetime.timezone",
    *(
        f"pathlib{local}.{kind}"
        for local in ("", "._local")
        for kind in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    ),
)
_DICTIONARIES = (
    "mmengine.config.config.ConfigDict",
    "mmcv.utils.config.ConfigDict",
    "addict.addict.Dict",
)
ALLOWED: list[Any] = [*((Inert, name) for name in _IGNORED), *((dict, name) for name in _DICTIONARIES)]
"""Types that a file may name besides tensors and plain containers, and their stand-ins."""


def load_plain(path: Path) -> Any:
    """Read a file of ``torch.save``: tensors on the CPU in plain containers. Other types: ``ALLOWED``.

    Raises UserError if the file is missing or damaged, or names any other type or function: calling what a
    file names is how a pickle runs code.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        check_archive(path)  # before it is unpacked
        _check_sums(path)
        check_pickle(path)
        with torch.serialization.safe_globals(ALLOWED), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sparse tensors, which are refused below, and old protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
        check_storages(content, path)
        return content
    except CheckpointError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        message = str(error)
        refused = re.search(r"GLOBAL ([\w.<>]+)", message)
        if refused:
            raise CheckpointError(
                f"{path}: holds an object of type {refused[1]}, which is not read, since that could "
                "run code. If you trust the file, open it where it was written and save only "
                "its 'state_dict' and 'meta'"
            ) from error
        first = message.split("\n")[0][:150]
        raise CheckpointError(
            f"{path}: not a readable checkpoint, perhaps cut short ({type(error).__name__}: {first})"
        ) from error


def _check_sums(path: Path) -> None:
    """Compare each record with its CRC-32, which ``torch.save`` writes and ``torch.load`` does not read."""
    if not zipfile.is_zipfile(path):
        return  # torch.load knows what it is
    with zipfile.ZipFile(path) as file:
        if (record := file.testzip()) is not None:
            raise ValueError(f"the checksum of its record {record} does not match")
