"""Exceptions that the command line turns into one message."""

import importlib
import signal
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


class Stopped(KeyboardInterrupt):
    """A signal has ended the work. Training has saved everything; the message says how to continue.

    The command line prints it and exits with 128 + ``signal``, as shells do: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = signal.Signals(number)


def import_extra(name: str, extra: str = "export", need: str = "ONNX files need") -> Any:
    """Import and return a module of the extra ``fsaf[extra]``. need: begins the message if it is absent.

    Raises UserError with the line that installs it if it is absent, or with the reason if it is broken.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError) or error.name != name:
            raise UserError(f"{name}: is installed, but cannot be imported ({error})") from error
        raise UserError(f"{need} the package {name}: pip install 'fsaf[{extra}]'") from error
