"""A protocol: which runs are compared, on which data, for how long; and the parts of the data.

    seeds: [0, 1, 2]
    data:
      cells:                                       # any name
        recipe: bccd_lite0
        train: annotations/instances_train.json    # relative to the folder that ``--root cells=FOLDER`` gives
        validation: annotations/instances_val.json
        test: annotations/instances_test.json
        images: images                             # with COCO JSON
        steps: 312                                 # the same for every run; or minutes
        options: {data.short_side: 288}            # of every run on these data
    variants:
      plain: {}
      light: {data.augment: light}
    peers: [torchvision-fcos, torchvision-retinanet]

Without ``validation`` a fifth of ``train`` is held out, chosen by the names of the images. ``built_in:
digits`` in place of the parts makes the built-in data set.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fsaf.config import DataConfig, SplitConfig
from fsaf.data.digits import write_digits
from fsaf.data.readers.holdout import choose, names_of
from fsaf.data.readers.splits import open_split
from fsaf.data.records import to_coco
from fsaf.errors import UserError
from fsaf.files import write_text
from fsaf.text import nearest, parse_yaml

PEERS = ("torchvision-fcos", "torchvision-retinanet")
SHARE = 0.2
"""Of the training images, if a data set has no validation part."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """The parts of a data set, and what every run on it has in common."""

    recipe: str
    train: str | None = None
    validation: str | None = None
    test: str | None = None
    images: str | None = None
    built_in: str | None = None
    steps: int | None = None
    minutes: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Runs to compare: each variant and peer, on each data set, with each seed."""

    name: str
    data: Mapping[str, DataSet]
    variants: Mapping[str, Mapping[str, Any]]
    seeds: list[int]
    peers: list[str]


def read_protocol(path: Path) -> Protocol:
    """Read a protocol file. Raises UserError naming the file, the key and what is allowed."""
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as YAML ({error})") from error
    _check_keys(content, ("seeds", "data", "variants", "peers"), str(path))
    for key in ("seeds", "data", "variants"):
        if not content.get(key):
            raise UserError(f"{path}: {key} is missing")
    data = {}
    for name, values in content["data"].items():
        where = f"{path}: data.{name}"
        _check_keys(values, [each.name for each in fields(DataSet)], where)
        if "recipe" not in values:
            raise UserError(f"{where}.recipe is missing")
        data[name] = one = DataSet(**values)
        if (one.steps is None) == (one.minutes is None):
            raise UserError(f"{where}: give either steps or minutes")
        if one.built_in not in (None, "digits"):
            raise UserError(f"{where}.built_in = {one.built_in!r}: must be digits")
        if one.built_in is None and not (one.train and one.test):
            raise UserError(f"{where}: give train and test, or built_in: digits")
    peers = content.get("peers") or []
    if unknown := set(peers) - set(PEERS):
        raise UserError(f"{path}: peers: {', '.join(sorted(unknown))}: must be of {', '.join(PEERS)}")
    variants = {name: values or {} for name, values in content["variants"].items()}
    return Protocol(name=path.stem, data=data, variants=variants, seeds=content["seeds"], peers=peers)


def _check_keys(values: Any, known: Any, where: str) -> None:
    if not isinstance(values, dict):
        raise UserError(f"{where}: must be keys with values")
    for key in values:
        if key not in known:
            raise UserError(
                f"{where}: unknown key {key}{nearest(str(key), known)}; known: {', '.join(known)}"
            )


def words(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line."""
    return [
        f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in options.items()
    ]


def parts(name: str, data: DataSet, phase: str, root: Path | None, folder: Path) -> list[str]:
    """Options that name the images to train on and those to score on.

    phase: ``choose`` scores on the validation part, and no test image is opened; ``report`` trains on the
    whole training part and scores on the test part. root: folder of the data. folder: for what is made here.
    """
    if data.built_in:
        inside = phase == "choose"
        made = write_digits(folder / ("digits-choose" if inside else "digits"), within_train=inside)
        split = {part: (f"annotations/{part}.json", f"images/{part}") for part in ("train", "val")}
        return _options(made, split)
    if root is None:
        raise UserError(f"the folder of {name} is not known; give --root {name}=FOLDER")
    assert data.train and data.test
    if phase == "report":
        return _options(root, {"train": (data.train, data.images), "val": (data.test, data.images)})
    if data.validation:
        return _options(root, {"train": (data.train, data.images), "val": (data.validation, data.images)})
    train = SplitConfig(annotations=data.train, images=data.images)
    records = open_split(DataConfig(root=str(root), train=train), "train")
    labels = {image.id: set(image.labels[~image.crowd].tolist()) for image in records.images}
    held_out = choose(names_of(records), labels, SHARE, seed=0)
    split = {}
    for part in ("train", "val"):
        mine = [image for image in records.images if (image.id in held_out) == (part == "val")]
        file = (folder / f"{name}-{part}.json").absolute()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(to_coco(replace(records, images=mine))))
        split[part] = (str(file), str(records.folder.absolute()))
    return _options(root, split)


def _options(root: Path, split: Mapping[str, tuple[str, str | None]]) -> list[str]:
    options = [f"--data.root={root}"]
    for part, (annotations, images) in split.items():
        options.append(f"--data.{part}.annotations={annotations}")
        options.append(f"--data.{part}.images={'null' if images is None else images}")
    return options
