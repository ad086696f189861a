"""Helpers to declare the keys of a recipe: a default, the text that help shows, and a check of the value."""

import copy
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from fsaf.errors import RecipeError

T = TypeVar("T")

AUTO = "auto"

if TYPE_CHECKING:
    AutoInt = int
else:
    AutoInt = int | Literal["auto"]
"""Type of a key that may be ``auto``. A config holds an ``Auto`` for it, which is an int."""


class Auto(int):
    """The usual value of a key that is ``auto``: training chooses another one if the data asks for it."""


def read_auto(value: Any, usual: int) -> int:
    """Return ``value``, or the usual value as an ``Auto`` if it is the word ``auto``."""
    return Auto(usual) if value == AUTO else value


def is_auto(value: object) -> bool:
    """Return True if training is to choose the value of a key."""
    return isinstance(value, Auto)


def key(default: T, text: str) -> T:
    """Declare a dataclass field with a default and the text that documents it.

    text: one or two sentences; code is in single backticks, as in Markdown. ``fsaf.keys`` reads it for help,
    completion and the reference pages.
    """
    metadata = {"text": text}
    if isinstance(default, list):
        return field(default_factory=lambda: copy.copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def section(schema: Callable[[], T], text: str) -> T:
    """Declare a dataclass field that holds a group of keys, with the title of the group."""
    return field(default_factory=schema, metadata={"text": text})


def check(condition: bool, name: str, value: object, must: str) -> None:
    """Raise UserError naming a key, its value and what the value must be, unless ``condition`` holds."""
    if not condition:
        raise RecipeError(f"{name} = {value!r}: must be {must}")
