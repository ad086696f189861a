"""Turn a YAML file and ``--key.sub value`` overrides into a checked ``Config``."""

import argparse
import contextlib
import copy
import dataclasses
import functools
import io
import typing
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import jsonargparse
import yaml

from fsaf.config import RENAMED, Config
from fsaf.errors import RecipeError, UserError
from fsaf.keys import choices_of, nearest_key, recipe_keys, with_new_name
from fsaf.text import nearest, parse_yaml, short

_PARSER_ERRORS = (
    argparse.ArgumentError,
    jsonargparse.ArgumentError,
    TypeError,
    ValueError,
    OverflowError,  # an integer of hundreds of digits
    AttributeError,  # PyYAML's, for a value that is not of its tag; so is the next
    LookupError,
)

LONGEST = 1000
"""Largest number of items of a list in a recipe."""


def find_recipe(name: str) -> Path:
    """Return the file of a recipe, given as a path or as the name of a recipe of the package.

    Raises UserError if there is no such recipe.
    """
    path = Path(name)
    if path.is_file():
        return path
    if (_shipped() / f"{name}.yaml").is_file():
        return _shipped() / f"{name}.yaml"
    names = recipe_names()
    near = nearest(name.removesuffix(".yaml").removesuffix(".yml"), names)
    raise RecipeError(f"{name}: no such recipe file{near}; the package ships: {', '.join(names)}")


def recipe_names() -> list[str]:
    """Return the names of the recipes of the package."""
    return sorted(file.stem for file in _shipped().glob("*.yaml"))


def _shipped() -> Path:
    return Path(str(resources.files("fsaf"))) / "configs"


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe and apply overrides; ``out`` defaults to ``runs/<recipe name>``.

    Raises UserError naming the file or option, the value and what is allowed.
    """
    path = find_recipe(name)
    try:
        base = parse_yaml(path.read_text(encoding="utf-8"), _Recipe)
    except (
        ValueError,
        OSError,
    ) as error:  # ValueError: also an impossible date, and bytes that are not UTF-8
        raise RecipeError(f"{path}: not readable as YAML ({error})") from error
    config = build_config(base or {}, overrides, where=str(path))
    if config.out is None:
        config.out = str(Path("runs") / path.stem)
    return config


def build_config(base: Any, overrides: Sequence[str] = (), *, where: str) -> Config:
    """Build a ``Config`` from plain dicts and command-line overrides.

    If the overrides name a backbone, ``model.mean`` and ``model.std`` of ``base`` do not apply: they belong
    to its own backbone.
    where: the file that ``base`` is from, for messages. Raises UserError naming it, the key, the value and
    what is allowed.
    """
    base, overrides = _with_new_names(base, where), [with_new_name(option) for option in overrides]
    _check_groups(base, Config, where, "")
    _check_overrides(overrides)
    if "model" in base and any(word.partition("=")[0] == "--model.backbone" for word in overrides):
        kept = {key: value for key, value in base["model"].items() if key not in ("mean", "std")}
        base = {**base, "model": kept}
    parser = config_parser()
    try:
        values = parser.parse_object(copy.deepcopy(base))
        parser.instantiate(values)  # before the overrides, so that a message can name the file
    except _PARSER_ERRORS as error:
        raise RecipeError(f"{where}: {_one_line(error)}") from error
    try:
        # The parser prints its usage on errors; our message is enough.
        with contextlib.redirect_stderr(io.StringIO()):
            values = parser.parse_args(list(overrides), namespace=values)
            return Config(**vars(parser.instantiate(values)))
    except UserError:
        raise
    except _PARSER_ERRORS as error:
        raise RecipeError(f"{_one_line(error)}; `fsaf train --help` lists every option") from error


def _with_new_names(base: Any, where: str) -> Any:
    """Return ``base`` with the keys of ``RENAMED`` under their new names."""
    for old, new in RENAMED.items():
        section, name = old.split(".")
        group = base.get(section) if isinstance(base, dict) else None
        if not isinstance(group, dict) or name not in group:
            continue
        if (new_name := new.split(".")[1]) in group:
            raise RecipeError(f"{where}: has {new} and also its old name {old}; leave out {old}")
        group = {key: value for key, value in group.items() if key != name} | {new_name: group[name]}
        base = {**base, section: group}
    return base


class _Recipe(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys, of which YAML would take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # At this point the keys are those of the file, without what ``<<`` merges in later.
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if lines.get(name) == line:
                raise yaml.YAMLError(f"{name} twice in line {line}")
            if name in lines:
                raise yaml.YAMLError(f"{name} in line {lines[name]} and again in line {line}")
            lines[name] = line
        return node


class _Yaml(yaml.SafeDumper):
    """A YAML dumper that writes each list on one line."""


_Yaml.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True)
)


def to_yaml(values: dict[str, Any]) -> str:
    """Return the text of a recipe. values: a config as returned by ``fsaf.config.to_dict``."""
    return yaml.dump(values, Dumper=_Yaml, sort_keys=False)


@functools.cache
def config_parser() -> jsonargparse.ArgumentParser:
    """Return a parser with one option for each key of ``Config``."""
    parser = jsonargparse.ArgumentParser(
        exit_on_error=False, add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS
    )
    parser.add_class_arguments(Config, None, as_group=False)
    return parser


def _check_groups(values: Any, schema: Any, where: str, prefix: str) -> None:
    """Raise UserError for an unknown key, or a value that no key has, which the parser would ignore."""
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: {prefix or 'the recipe'} must be keys with values, not {short(values)}")
    fields = {field.name: field for field in dataclasses.fields(schema)}
    for key, value in values.items():
        if not isinstance(key, str):
            raise RecipeError(f"{where}: {prefix}{short(key)} is no key; known here: {', '.join(fields)}")
        if key not in fields:
            near = nearest_key(f"{prefix}{key}", [key.name for key in recipe_keys()])
            raise RecipeError(f"{where}: unknown key {prefix}{key}{near}; known here: {', '.join(fields)}")
        kind = fields[key].type
        if dataclasses.is_dataclass(kind):
            _check_groups(value, kind, where, f"{prefix}{key}.")
        elif isinstance(value, str):
            _check_word(f"{where}: {prefix}{key}", value, kind)
        elif value is None and type(None) not in typing.get_args(kind):
            raise RecipeError(f"{where}: {prefix}{key} = null: this key needs a value")
        elif not _is_plain(value):
            raise RecipeError(
                f"{where}: {prefix}{key} = {short(value)}: must be a number, a text, true, false, null, or a "
                f"list of up to {LONGEST}"
            )


def _is_plain(value: Any, depth: int = 2) -> bool:
    """Return True for a scalar that JSON has too, and for a short list of them or of such lists."""
    if isinstance(value, (list, tuple)):
        return depth > 0 and len(value) <= LONGEST and all(_is_plain(each, depth - 1) for each in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _check_overrides(overrides: Sequence[str]) -> None:
    """Raise UserError for an unknown option, naming the nearest key, or a word that the key does not take."""
    keys = {f"--{key.name}": key for key in recipe_keys()}
    for i, given in enumerate(overrides):
        option, equals, value = given.partition("=")
        if not option.startswith("--"):
            continue
        if option not in keys:
            near = nearest_key(option, list(keys))
            raise UserError(f"unrecognized option {given}{near}; `fsaf train --help` lists every option")
        if not equals and i + 1 < len(overrides):
            value = overrides[i + 1]
        if value.startswith("!!"):
            raise UserError(f"{option} = {short(value)}: tags of YAML are not possible here")
        _check_word(option.removeprefix("--"), value, keys[option].kind)


def _check_word(key: str, value: str, kind: Any) -> None:
    """Raise UserError if ``value`` is not one of the words that a key takes.

    If the key takes other values too, only misspelt words are refused here; the parser checks the rest.
    """
    words, near = choices_of(kind), nearest(value, choices_of(kind))
    if value in words or (value.lower() in words and {"true", "false"} <= set(words)):
        return
    if near or typing.get_origin(kind) is Literal:
        raise RecipeError(f"{key} = {value!r}: must be one of {', '.join(words)}{near}")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 1000 else f"{text[:1000]} ..."
