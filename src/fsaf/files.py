"""Files that are whole or not there: whatever ends the program, a reader finds the old one or the new one."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Have ``write`` fill a file beside ``path``; sync it and rename it to ``path``.

    Raises OSError where that fails, with what was at ``path`` left as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """``write_whole`` for text, as UTF-8."""
    data = text.encode()

    def write(file: BinaryIO) -> None:
        file.write(data)

    write_whole(path, write)


def sync_folder(folder: Path) -> None:
    """Have the names in ``folder`` survive a loss of power; nothing where a system cannot do this."""
    with contextlib.suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Delete the unfinished files that processes killed in ``write_whole`` have left in ``folder``."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            path.unlink()
