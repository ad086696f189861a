"""The one exception for a user's mistake, and text that is safe to print."""

from pathlib import Path


class UserError(ValueError):
    """A mistake in the user's input; the message names the file, the value and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """


def printable(text: object) -> str:
    """``text`` as one line for a terminal: what files say may hold control characters and broken Unicode."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def check_folder(path: Path) -> None:
    """Raise UserError where a folder ``path`` cannot be, since there is a file in its place or above it."""
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"{place}: is a file, so {path} cannot be a folder; give another --out FOLDER")
