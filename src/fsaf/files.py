"""Write files and folders whole or not at all: after a crash a reader finds the old one or the new one."""

import contextlib
import errno
import functools
import os
import platform
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsaf.errors import WriteError
from fsaf.text import printable


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield the path of a draft to write; when the block ends, sync it to disk and rename it to ``path``.

    If the block raises, the draft is deleted and ``path`` stays as it was. Folders above ``path`` are
    created. A pipe or device, such as ``/dev/stdout``, is yielded itself: renaming would replace it. Raises
    WriteError for an OSError, also for one that the block raises.
    """
    with _naming(path):
        if _is_special(path):
            yield path
            return
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers_once(path.parent)
        draft = path.with_name(_draft_name(path))
        try:
            yield draft
            sync(draft)
            draft.replace(path)
            _sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder to fill; when the block ends, its content appears as that of ``folder``.

    ``folder`` must be absent or empty. If the block raises, nothing is left. Raises WriteError for an
    OSError, also for one that the block raises.
    """
    with _naming(folder):
        exists = folder.exists()  # then it may be a mount point, which cannot be replaced
        draft = folder / _draft_name(folder) if exists else folder.with_name(_draft_name(folder))
        _remove_leftovers_once(draft.parent)
        try:
            draft.mkdir(parents=True)
            yield draft
            for file in draft.rglob("*"):
                if file.is_file():
                    sync(file)
            if exists:
                if any(path.name[0] != "." for path in folder.iterdir()):  # written by another process since
                    raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
                for entry in list(draft.iterdir()):
                    entry.rename(folder / entry.name)
            else:
                draft.rename(folder)
            _sync_folder(folder.parent)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """Yield an empty folder in the system's folder for temporary files; when the block ends, delete it.

    Folders that killed processes have left there are deleted too.
    """
    parent = Path(tempfile.gettempdir())
    remove_leftovers(parent, f"{name}.")
    folder = parent / _draft_name(parent / name).removeprefix(".")  # gradio serves no hidden files
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, as UTF-8. Raises WriteError if that fails."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")


def check_folder(path: Path) -> None:
    """Raise WriteError if a file is in the place of folder ``path`` or of a folder above it."""
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise WriteError(f"{place}: is a file, so {path} cannot be a folder; give another --out FOLDER")


def sync(file: Path) -> None:
    """Make the content of a file survive a loss of power."""
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def remove_leftovers(folder: Path, start: str = ".") -> None:
    """Delete drafts in ``folder`` whose process was killed; drafts of other machines stay.

    start: beginning of their names; that of all drafts by default.
    """
    pattern = re.compile(rf"{re.escape(start)}.*{re.escape(_machine())}\.(\d+)\.\w+\.tmp", re.DOTALL)
    for path in folder.glob(f"{start}*.tmp"):
        match = pattern.fullmatch(path.name)
        if match and not _is_alive(int(match[1])):
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@functools.cache
def _remove_leftovers_once(folder: Path) -> None:
    """Call ``remove_leftovers`` once in this process: to list a folder for each file would take too long."""
    remove_leftovers(folder)


def write_error(path: Path, error: Any) -> WriteError:
    """Return the error to raise if ``path`` cannot be written; error: an OSError, or FFmpeg's."""
    if error.errno == errno.ENOTEMPTY:
        return WriteError(f"{path}: another process has just written it; give another folder, or remove it")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "free some space, or write elsewhere" if full else "write elsewhere"
    return WriteError(f"{path}: cannot be written ({printable(error.strerror or error)}); {remedy}")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn an OSError into a WriteError that names ``path``."""
    if "\0" in str(path):  # Python raises ValueError
        raise WriteError(f"{path}: is not a possible name; give another")
    try:
        yield
    except BrokenPipeError:  # the reader of a pipe has seen enough; not an error of the user
        raise
    except OSError as error:
        raise write_error(path, error) from error


def _draft_name(path: Path) -> str:
    name = os.fsdecode(os.fsencode(path.name)[:100])  # names may have 255 bytes
    return f".{name}.{_machine()}.{os.getpid()}.{secrets.token_hex(3)}.tmp"


def _machine() -> str:
    """Return the name of this machine: on a shared disk process ids of other machines mean nothing here."""
    return re.sub(r"\W", "-", platform.node())[:50]


def _is_special(path: Path) -> bool:
    """Return True for a pipe or device, and for anything in /dev and /proc, which may link to a file."""
    if {Path("/dev"), Path("/proc")} & set(path.absolute().parents):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # there os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power, if the system can."""
    with contextlib.suppress(OSError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
