"""Text from files and for people: safe to print, in columns, the nearest word for a misspelt one; JSON."""

import json
import reprlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


def printable(text: object) -> str:
    """Return ``text`` on one line, without control characters and broken Unicode that files may contain."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def printable_lines(text: str) -> str:
    """Return ``text`` with each of its lines ``printable``."""
    return "\n".join(map(printable, text.split("\n")))


def markdown(text: object) -> str:
    """Return ``text`` on one line, escaped so that Markdown shows it as it is."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|" else letter for letter in printable(text))


def short(value: object) -> str:
    """Return ``repr(value)``, or the text of an exception, cut to a line, whatever the size of ``value``."""
    try:
        if isinstance(value, Exception):
            return printable(value)[:200]
        return printable(reprlib.repr(value))[:60]
    except Exception:  # a value from a file may have a repr that fails
        return f"a value of type {type(value).__name__}"


def parse_json(text: str) -> Any:
    """Parse JSON of any origin. Raises ValueError if it is damaged or nested too deep for Python."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def parse_yaml(text: str, loader: type | None = None) -> Any:
    """Parse YAML of any origin; raise ValueError if it is damaged or nested too deep for Python.

    loader: a subclass of PyYAML's ``SafeLoader``, which is the default.
    """
    import yaml

    try:
        return yaml.load(text, Loader=loader or yaml.SafeLoader)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    except (
        yaml.YAMLError,
        AttributeError,
        LookupError,
    ) as error:  # the latter two for a value of another tag
        raise ValueError(str(error) or type(error).__name__) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'train'?`` for the word nearest to ``name``; an empty text if none is near."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return ``1 image`` or ``1,000 images``. many: the plural, by default ``one`` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def columns(rows: Sequence[Sequence[str]], alignment: str) -> str:
    """Return rows of cells as lines of aligned columns, two spaces apart.

    alignment: ``l`` or ``r`` for each column; the last one is repeated for further columns. Rows may be
    shorter than others. Wide characters, such as Chinese ones, count as two columns of a terminal.
    """
    from rich.cells import cell_len  # here, because every start of the command line imports this file

    cells = [[printable(cell) for cell in row] for row in rows]
    count = max((len(row) for row in cells), default=0)
    sides = alignment + alignment[-1] * count
    widths = [max(cell_len(row[i]) for row in cells if len(row) > i) for i in range(count)]
    lines = []
    for row in cells:
        padded = []
        for cell, side, width in zip(row, sides, widths, strict=False):
            space = " " * (width - cell_len(cell))
            padded.append(cell + space if side == "l" else space + cell)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
