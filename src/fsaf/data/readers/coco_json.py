"""COCO's JSON files: parse one quickly, recognise one by its keys, and read numbers as tools write them."""

import contextlib
import gc
import json
import math
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsaf.errors import DataError

KEYS = ("images", "annotations", "categories")
"""Lists at the top of a COCO file."""


def read_json(path: Path, polygons: bool = False) -> Any:
    """Parse a JSON file. Raises UserError if it is missing, unreadable or not JSON.

    polygons: also parse ``segmentation``. Boxes do not need it, and it is most of a COCO file: without it
    COCO's largest file is read three times as fast.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with _no_collection():
            if not polygons:
                with contextlib.suppress(ValueError):
                    return json.loads(_POLYGONS.sub(b'"segmentation": 0', path.read_bytes()))
            # Parse the unchanged file also after an error, so that the message gives the right position.
            return json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError, MemoryError) as error:  # ValueError: also a number too long
        raise DataError(f"{path}: not readable as JSON ({error})") from error


# A key followed by nested lists of numbers. Inside a string the quotes would follow backslashes.
_POLYGONS = re.compile(rb'"segmentation"\s*:\s*\[[][\d\s.,eE+-]*\]')


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Disable the garbage collector, which would search a million new objects again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def is_coco(path: Path) -> bool:
    """Return True if a JSON file holds all keys of a COCO file. The file is searched, not parsed."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(f'"{key}"'.encode()) >= 0 for key in KEYS)
    except (OSError, ValueError):  # ValueError: an empty file
        return False


def is_int(value: object) -> bool:
    """Return True for a whole number that int64 holds; JSON's numbers may have any number of digits."""
    return type(value) is int and -(2**63) < value < 2**63


def is_number(value: object) -> bool:
    """Return True for a finite number that float64 holds."""
    return (type(value) is float and math.isfinite(value)) or is_int(value)


def whole(value: object) -> int | None:
    """Return a whole number that may be written as a decimal (``3.0``) or as text (``"3"``), else None."""
    if is_int(value):
        return value  # type: ignore[return-value]
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if (
        type(value) is str
        and len(value) < 19
        and value.isascii()
        and value.isdigit()
        and str(int(value)) == value
    ):
        return int(value)
    return None


def extent(polygons: object) -> list[float] | None:
    """Return x, y, width and height of a list of polygons, each x, y, x, y, ...; None if it is none."""
    if not isinstance(polygons, list) or not polygons:
        return None
    if not isinstance(polygons[0], list):
        polygons = [polygons]
    if not all(isinstance(each, list) and len(each) >= 4 and len(each) % 2 == 0 for each in polygons):
        return None
    if not all(is_number(value) for each in polygons for value in each):
        return None
    xs = [value for each in polygons for value in each[::2]]
    ys = [value for each in polygons for value in each[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
