"""Short and foreign ways to type a command line, as words that the parser knows."""

import json
import os
import shlex
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from fsaf.errors import RecipeError, UserError
from fsaf.keys import with_new_name
from fsaf.recipe import recipe_names
from fsaf.text import short

OTHER_NAMES = {"val": "evaluate", "test": "evaluate", "detect": "predict"}
"""Verbs of other packages."""
OPTIONS = {"--data": "--data.root"}
"""Short options of the recipe that every verb with the key takes."""
RECIPE = "lite0"
"""Recipe for a data set that is given without one."""

FOREIGN = {
    "data": "--data.root",
    "epochs": "--train.epochs",
    "batch": "--data.batch_size",
    "imgsz": "--data.short_side",
    "lr0": "--optim.lr",
    "seed": "--train.seed",
    "workers": "--data.workers",
    "conf": "--predict.score_threshold",
    "iou": "--predict.nms_iou",
    "max_det": "--predict.max_detections",
    "device": "--device",
    "project": "--out",
}
"""Options of ``yolo KEY=VALUE`` and what they are here."""


def translate(words: Sequence[str]) -> list[str]:
    """Return the words of a command line as the parser takes them.

    No words show the help. ``val`` and ``test`` are ``evaluate``; ``--data`` is ``--data.root``;
    ``train DATA`` is ``train lite0 --data.root DATA --out runs/DATA``; old names of keys become the new ones.
    Raises UserError for ``data=x model=y``, with the line to type.
    """
    if not words:
        return ["--help"]
    verb, *rest = [_with_option(with_new_name(word)) for word in words]
    verb = OTHER_NAMES.get(verb, verb)
    foreign = [word for word in rest if "=" in word and word.partition("=")[0].isidentifier()]
    if verb in ("train", "evaluate", "predict", "export") and foreign and not _are_files(foreign):
        raise UserError(f"options are written --key value here; type: {_from_foreign(verb, rest)}")
    if verb == "train" and rest and _is_data(rest[0]):
        name = Path(rest[0]).resolve().name
        out = [] if any(word.partition("=")[0] == "--out" for word in rest) else ["--out", f"runs/{name}"]
        rest = [RECIPE, "--data.root", rest[0], *out, *rest[1:]]
    return [verb, *rest]


def _with_option(word: str) -> str:
    name, equals, value = word.partition("=")
    return f"{OPTIONS[name]}{equals}{value}" if name in OPTIONS else word


def _is_data(word: str) -> bool:
    try:
        return Path(word).is_dir() and word not in recipe_names()
    except OSError:  # a name too long for a file system
        return False


def _are_files(words: Sequence[str]) -> bool:
    return all(Path(word).exists() for word in words)


def _from_foreign(verb: str, words: Sequence[str]) -> str:
    """Return the command line for ``KEY=VALUE`` words of other packages."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    line = ["fsaf", verb]
    if verb == "train":
        model = given.pop("model", RECIPE)
        line.append(model if model in recipe_names() else RECIPE)
    else:
        line.append(given.pop("model", "CHECKPOINT"))
    if verb == "predict":
        data = given.pop("data", "IMAGES")  # predict takes pictures, not a data set
        line.append(given.pop("source", data))
    for key, value in given.items():
        option = FOREIGN.get(key) or (f"--{key}" if "." in key else None)
        if option:
            line += [option, value]
    return shlex.join(line)


def as_option(key: str, value: Any) -> str:
    """Return ``--key=value`` as the command line has it. Raises UserError for a value that YAML has not."""
    try:
        text = os.fspath(value) if isinstance(value, (str, PathLike)) else json.dumps(value)
    except (TypeError, ValueError) as error:
        raise RecipeError(
            f"{key} = {short(value)}: must be a number, a text, true, false, null, or a list"
        ) from error
    return f"--{key}={text}"
