"""Pascal VOC's XML files: parse one safely, and read its size and its objects.

Corners are pixels counted from 1, the last one included: see ``voc.py``.
"""

import math
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

from fsaf.data.faults import Faults


class Object(NamedTuple):
    """One ``object`` of an XML file."""

    name: str
    xywh: tuple[float, float, float, float]
    difficult: bool
    number: int
    """Position in the file, from 1."""


def parse_xml(data: bytes) -> ElementTree.Element:
    """Parse XML from an untrusted source.

    A document type is refused, and with it every entity, which could expand or read another file.
    Raises ValueError, saying what is wrong.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, LookupError, AssertionError) as error:  # LookupError: an unknown encoding
        raise ValueError(str(error)) from error


def _refuse_doctype(*_: object) -> None:
    raise ValueError("holds a DOCTYPE, which may define entities; remove it")


def read_size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Return height and width; None if they are missing or not above 0."""
    values = [_number(root.findtext(f"size/{key}")) for key in ("height", "width")]
    if not all(1 <= value < 2**31 for value in values):  # false for NaN
        return None
    return int(values[0]), int(values[1])


def read_object(element: ElementTree.Element, number: int, file: Path, faults: Faults) -> Object | None:
    """Return an ``object`` element, number ``number`` of its file; None, with a fault, if it is broken."""
    name = (element.findtext("name") or "").strip()
    corners = [element.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
    if not name or None in corners:
        text = f"object {number}: needs a name, and a bndbox with xmin, ymin, xmax, ymax"
        faults.add("entry", file, text, item=number)
        return None
    x1, y1, x2, y2 = map(_number, corners)
    if not all(map(math.isfinite, (x1, y1, x2, y2))):
        text = f"object {number}: bndbox {corners!r:.120} must be four finite numbers"
        faults.add("box-not-a-number", file, text, item=number)
        return None
    # xmax = xmin - 1 is a box without pixels; anything below is inverted. Tools write both for an empty box.
    difficult = (element.findtext("difficult") or "").strip().lower() in ("1", "true", "yes")
    return Object(name, (x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1), difficult, number)


def _number(text: str | None) -> float:
    """Return ``text`` as a number, NaN if it is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
