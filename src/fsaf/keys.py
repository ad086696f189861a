"""Every key of a recipe as one flat list, with what its schema says: for help, completion and suggestions."""

import ast
import dataclasses
import types
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from fsaf import config
from fsaf.errors import nearest


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of a recipe."""

    name: str
    """Dotted, as in ``data.train.images``."""
    kind: Any
    """Its type in the schema."""
    default: Any
    """What it is where no recipe says otherwise."""
    text: str
    """What it does, in a sentence or two."""

    @property
    def section(self) -> str:
        """``data`` of ``data.train.images``; empty for a key of no section."""
        return self.name.rpartition(".")[0].split(".")[0]

    @property
    def choices(self) -> tuple[str, ...]:
        """The words it can take, where the schema lists some; numbers may be allowed beside them."""
        return choices_of(self.kind)

    @property
    def metavar(self) -> str:
        """What stands for its value in help."""
        kinds = set(_alternatives(self.kind))
        words = list(self.choices)
        if kinds & {int, float}:
            words.append("N")
        if str in kinds:
            words.append("TEXT")
        return "|".join(words) or "LIST"


def choices_of(kind: Any) -> tuple[str, ...]:
    """The words that a value of type ``kind`` can be; none for a list, whose items may be words."""
    words: list[str] = []
    for part in _alternatives(kind):
        if part is bool:
            words += ["true", "false"]
        elif get_origin(part) is Literal:
            words += [str(value) for value in get_args(part)]
    return tuple(words)


def _alternatives(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def recipe_keys() -> list[Key]:
    """All keys, in the order of the schema."""
    return _keys_of(config.Config, "", _read_texts())


def section_texts() -> dict[str, str]:
    """What each section of a recipe is about, by its name."""
    texts = _read_texts().get("Config", {})
    return {
        field.name: texts.get(field.name, "").rstrip(".")
        for field in dataclasses.fields(config.Config)
        if dataclasses.is_dataclass(field.type)
    }


def nearest_key(name: str, known: Sequence[str]) -> str:
    """As ``fsaf.errors.nearest``: the one key with the last part of ``name``, else the key most like it."""
    same = [key for key in known if key.rpartition(".")[2].lstrip("-") == name.rpartition(".")[2].lstrip("-")]
    return f"; did you mean {same[0]!r}?" if len(same) == 1 else nearest(name, known)


def _keys_of(schema: Any, prefix: str, texts: dict[str, dict[str, str]]) -> list[Key]:
    keys: list[Key] = []
    for field in dataclasses.fields(schema):
        name = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(field.type):
            keys += _keys_of(field.type, f"{name}.", texts)
            continue
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        text = texts.get(schema.__name__, {}).get(field.name, "")
        keys.append(Key(name=name, kind=field.type, default=default, text=text))
    return keys


def _read_texts() -> dict[str, dict[str, str]]:
    """The string behind each field, which Python itself does not keep: class to field to text."""
    try:
        tree = ast.parse(Path(str(config.__file__)).read_text(encoding="utf-8"))
    except OSError:  # installed without its source
        return {}
    found: dict[str, dict[str, str]] = {}
    for schema in tree.body:
        if not isinstance(schema, ast.ClassDef):
            continue
        texts = found.setdefault(schema.name, {})
        for field, text in zip(schema.body, schema.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                assert isinstance(field.target, ast.Name) and isinstance(text.value, ast.Constant)
                texts[field.target.id] = " ".join(str(text.value.value).replace("``", "").split())
    return found


def with_new_name(option: str) -> str:
    """Return a word of the command line, ``--key.sub`` or ``--key.sub=value``, with its key's new name."""
    name, equals, value = option.partition("=")
    new = config.RENAMED.get(name.removeprefix("--"))
    return f"--{new}{equals}{value}" if new and name.startswith("--") else option
