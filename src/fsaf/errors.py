"""Exceptions that the command line turns into one message, and text that is safe to print."""

import importlib
import signal
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any


class UserError(ValueError):
    """A mistake in the user's input. The message names the file, the value and the remedy.

    The command line prints it without a traceback and exits with status 2. The subclasses tell causes apart;
    mistakes of no listed cause, such as a wrong option, are plain UserErrors.
    """


class DataError(UserError):
    """Annotations, images or videos are missing, unreadable, or do not fit the task."""


class RecipeError(UserError):
    """A recipe is missing or unreadable, or a key of it is unknown or has a wrong value."""


class CheckpointError(UserError):
    """A checkpoint or exported file is missing, damaged, or does not fit."""


class DeviceError(UserError):
    """A device is not there, or cannot do what was asked of it."""


class WriteError(UserError):
    """A file or folder cannot be written: no space, no permission, or something else in its place."""


def printable(text: object) -> str:
    """Return ``text`` on one line, without control characters and broken Unicode that files may contain."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


class Stopped(KeyboardInterrupt):
    """A signal has ended the work. Training has saved everything; the message says how to continue.

    The command line prints it and exits with 128 + ``signal``, as shells do: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = signal.Signals(number)


def check_folder(path: Path) -> None:
    """Raise WriteError if a file is in the place of folder ``path`` or of a folder above it."""
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise WriteError(f"{place}: is a file, so {path} cannot be a folder; give another --out FOLDER")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'train'?`` for the word nearest to ``name``; an empty text if none is near."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def import_extra(name: str) -> Any:
    """Import and return a module of the extra ``fsaf[export]``.

    Raises UserError with the line that installs it if it is absent, or with the reason if it is broken.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError) or error.name != name:
            raise UserError(f"{name}: is installed, but cannot be imported ({error})") from error
        raise UserError(f"ONNX files need the package {name}: pip install 'fsaf[export]'") from error
