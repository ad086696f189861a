"""The exceptions that the command line turns into one message, and text that is safe to print."""

import importlib
import signal
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any


class UserError(ValueError):
    """A mistake in the user's input; the message names the file, the value and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """


def printable(text: object) -> str:
    """``text`` as one line for a terminal: what files say may hold control characters and broken Unicode."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


class Stopped(KeyboardInterrupt):
    """A signal has ended the work; training has saved everything, and the message says how to go on.

    The command line prints it and exits with 128 + ``signal``, as shells count: 130 for Ctrl-C, 143 for
    SIGTERM.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = signal.Signals(number)


def check_folder(path: Path) -> None:
    """Raise UserError where a folder ``path`` cannot be, since there is a file in its place or above it."""
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"{place}: is a file, so {path} cannot be a folder; give another --out FOLDER")


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'train'?`` to follow a message about ``name``; empty where nothing known is near."""
    found = get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


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
