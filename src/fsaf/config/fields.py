"""Helpers to declare the keys of a recipe: a default, the text that help shows, and a check of the value."""

import copy
from collections.abc import Callable
from dataclasses import field
from typing import TypeVar

from fsaf.errors import RecipeError

T = TypeVar("T")


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
