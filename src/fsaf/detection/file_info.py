"""Metadata that an exported file carries, in it or beside it: outputs, classes, config, preprocessing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from fsaf.checkpoints.classes import read_classes
from fsaf.config import Config, to_dict
from fsaf.config.data import MULTIPLE
from fsaf.data.records import Classes
from fsaf.errors import CheckpointError
from fsaf.recipe import build_config
from fsaf.text import parse_json, short

FORMAT = "fsaf"
VERSION = 1
"""Version of inputs, outputs and metadata."""

Outputs = Literal["detections", "raw", "head"]
"""Boxes, scores, labels after suppression; logits and boxes of all locations; or what the head computes."""


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """Metadata of an exported file."""

    classes: Classes
    config: Config
    outputs: Outputs
    size: tuple[int, int] | None
    """(H, W) of its images; None if it takes any multiples of 32."""


def make_metadata(
    classes: Classes, config: Config, size: tuple[int, int] | None, outputs: Outputs, fixed_size: bool
) -> dict[str, Any]:
    """Return what a program needs to prepare images and name detections: the file's ``metadata_props``.

    size: (H, W) of a file that takes one size; the stored config then asks for this batch shape. The config
    names no path of this machine.
    """
    data = replace(config.data, root=None, train=type(config.data.train)(), val=type(config.data.val)())
    if size is not None:
        data = replace(data, shapes=[size], pad=None)
    own = replace(config, data=data, model=replace(config.model, weights="none"), init=None, out=None)
    preprocessing = {
        "colour": "RGB",
        "range": [0, 255],
        "resize": {"short_side": data.short_side, "long_side": data.long_side, "antialias": data.antialias},
        "pad_to": size and list(size),
        "pad_multiple": MULTIPLE,
        "pad_where": "right and bottom",
        "pad_with": list(config.model.mean_colour) if fixed_size else "anything",
        "normalisation": "inside the file; padding becomes 0 after it",
    }
    return {
        "format": FORMAT,
        "version": str(VERSION),
        "outputs": outputs,
        "size": "free" if size is None else "fixed",
        "classes": {"names": list(classes.names), "ids": list(classes.ids)},
        "config": to_dict(own),
        "preprocessing": preprocessing,
    }


def output_names(outputs: Outputs, config: Config) -> list[str]:
    """Return the names of a file's outputs, in order."""
    if outputs == "detections":
        return ["boxes", "scores", "labels"]
    if outputs == "raw":
        return ["logits", "boxes"]
    free, based = (kind in config.model.branches for kind in ("anchor_free", "anchor_based"))
    return ["logits", "distances"] * free + ["anchor_logits", "anchor_deltas"] * based


def read_info(metadata: Mapping[str, Any], path: Path) -> FileInfo:
    """Read a file's metadata; ``classes`` and ``config`` may be JSON text.

    Raises UserError, naming ``path``, if another program or a newer fsaf wrote it, or if it is damaged.
    """
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not written by `fsaf export` (it has no classes and config of fsaf)")
    try:
        version, outputs = int(metadata["version"]), metadata["outputs"]
        classes, config = (
            parse_json(value) if isinstance(value, str) else value
            for value in (metadata["classes"], metadata["config"])
        )
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{path}: its metadata is damaged ({short(error)}); export it again") from error
    if version > VERSION:
        raise CheckpointError(f"{path}: written by a newer fsaf (format {version}); upgrade fsaf")
    if outputs not in get_args(Outputs) or not isinstance(classes, dict):
        raise CheckpointError(
            f"{path}: its metadata is damaged (outputs {short(outputs)}, classes {short(classes)}); export "
            "it again"
        )
    found = read_classes(classes.get("names"), classes.get("ids"), str(path))
    built = build_config(config, where=str(path))
    shapes, free = built.data.shapes or [], metadata.get("size") == "free"  # fixed, if it is not there
    if built.model.mean is None or (len(shapes) != 1 and not free):
        raise CheckpointError(f"{path}: its metadata is damaged (no mean colour or size); export it again")
    return FileInfo(classes=found, config=built, outputs=outputs, size=None if free else shapes[0])
