"""Every key of a recipe as one flat list, read from the schema: for help, completion and reference pages."""

import dataclasses
import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from fsaf.config import RENAMED, Config
from fsaf.text import nearest


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of a recipe."""

    name: str
    """Dotted, as in ``data.train.images``."""
    kind: Any
    """Its type in the schema."""
    default: Any
    text: str
    """One or two sentences about its effect; code is in single backticks."""

    @property
    def section(self) -> str:
        """Return ``data`` for ``data.train.images``; an empty text for a key outside the sections."""
        return self.name.rpartition(".")[0].split(".")[0]

    @property
    def choices(self) -> tuple[str, ...]:
        """Return the words that the key accepts. It may accept numbers or any text as well."""
        return choices_of(self.kind)

    @property
    def metavar(self) -> str:
        """Return the placeholder for its value in help."""
        kinds = set(_alternatives(self.kind))
        words = list(self.choices)
        if kinds & {int, float}:
            words.append("N")
        if str in kinds:
            words.append("TEXT")
        return "|".join(words) or "LIST"


def choices_of(kind: Any) -> tuple[str, ...]:
    """Return the words that a value of type ``kind`` can be; none for a list, even of words."""
    words: list[str] = []
    for part in _alternatives(kind):
        if part is bool:
            words += ["true", "false"]
        elif get_origin(part) is Literal:
            words += [str(value) for value in get_args(part)]
    return tuple(words)


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted keys, as in ``optim.lr``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def recipe_keys() -> list[Key]:
    """Return all keys, in the order of the schema."""
    return _keys_of(Config, "")


def section_titles() -> dict[str, str]:
    """Return the title of each section of a recipe, by its name."""
    return {
        field.name: field.metadata["text"]
        for field in dataclasses.fields(Config)
        if dataclasses.is_dataclass(field.type)
    }


def nearest_key(name: str, known: Sequence[str]) -> str:
    """Return ``; did you mean 'optim.lr'?`` for the key nearest to ``name``; an empty text if none is near.

    A key with the same last part comes first, if there is exactly one; else the most similar key.
    """
    same = [key for key in known if key.rpartition(".")[2].lstrip("-") == name.rpartition(".")[2].lstrip("-")]
    return f"; did you mean {same[0]!r}?" if len(same) == 1 else nearest(name, known)


def _keys_of(schema: Any, prefix: str) -> list[Key]:
    keys: list[Key] = []
    for field in dataclasses.fields(schema):
        name = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(field.type):
            keys += _keys_of(field.type, f"{name}.")
            continue
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        keys.append(Key(name=name, kind=field.type, default=default, text=field.metadata["text"]))
    return keys


def with_new_name(option: str) -> str:
    """Return a word of the command line, ``--key.sub`` or ``--key.sub=value``, with its key's new name."""
    name, equals, value = option.partition("=")
    new = RENAMED.get(name.removeprefix("--"))
    return f"--{new}{equals}{value}" if new and name.startswith("--") else option
