"""The ``fsaf check`` command that checks data for a given config."""

import json
import shlex
from functools import cache
from typing import Any

from fsaf.config import Config, to_dict
from fsaf.recipe import load_recipe, recipe_names

_KEYS = {
    "data": (
        "train",
        "val",
        "short_side",
        "long_side",
        "exif_rotation",
        "shapes",
        "pad",
        "max_boxes",
        "min_size",
        "keep_empty",
        "max_pixels",
        "val_share",
        "val_seed",
        "on_bad_image",
    ),
    "objective": ("pos_scale",),
    "model": ("branches",),
}
"""Keys of a recipe that a check depends on."""


def check_command(config: Config) -> str:
    """Return the ``fsaf check`` command that judges data as training with ``config`` does.

    It names the shipped recipe that is nearest to ``config``, and the keys that differ from it.
    """
    own = _relevant(to_dict(config))
    differing = {
        name: [key for key, value in recipe.items() if own[key] != value]
        for name, recipe in _recipes().items()
    }
    name = min(differing, key=lambda each: (len(differing[each]), each != "lite0", each))
    words = ["fsaf", "check", config.data.root or ".", "--recipe", name]
    for key in differing[name]:
        value = own[key]
        words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    return shlex.join(words)


@cache
def _recipes() -> dict[str, dict[str, Any]]:
    return {name: _relevant(to_dict(load_recipe(name))) for name in recipe_names()}


def _relevant(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of ``_KEYS`` by dotted name."""
    flat: dict[str, Any] = {}
    for section, keys in _KEYS.items():
        for key in keys:
            value = values[section][key]
            inner = value if isinstance(value, dict) else None
            flat |= (
                {f"{section}.{key}": value}
                if inner is None
                else {f"{section}.{key}.{name}": each for name, each in inner.items()}
            )
    return flat
