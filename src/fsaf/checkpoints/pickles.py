"""Reading files of ``torch.save`` that other programs wrote, without running code in them."""

import re
from pathlib import Path
from typing import Any

import torch

from fsaf.checkpoints.memory import check_archive, check_storages
from fsaf.errors import CheckpointError


class Inert:
    """Takes the place of an object that is of no use here: keeps nothing, does nothing."""

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
"""What a file may name besides tensors and plain containers, with what stands in for it."""


def load_plain(path: Path) -> Any:
    """What ``torch.save`` wrote to ``path``: tensors on the CPU in plain containers; see ``ALLOWED``.

    Raises UserError where the file is missing or damaged, or names any other type or function: calling what a
    file names is how a pickle runs code.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        check_archive(path)
        with torch.serialization.safe_globals(ALLOWED):
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
