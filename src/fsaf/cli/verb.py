"""One verb of the command line, and the options that several verbs share."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fsaf.keys import Key

RESIZING = ("short_side", "long_side", "antialias", "exif_rotation", "shapes", "pad", "max_pixels")
EVALUATION = ("root", "val.annotations", "val.images", "batch_size", "workers", *RESIZING)
"""Keys of the section ``data`` that evaluation depends on; prediction depends on ``RESIZING`` alone."""

DEVICE = "auto (an accelerator if there is one), cpu, cuda, npu, ..."
DEVICES = "processes on this machine, one per device (1); for several machines see docs/many-devices.md"


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb: its text, its options, and the function that runs it.

    name: the word on the command line. text: one line for ``fsaf --help``. options: adds the verb's own
    options to its parser. run: takes the parsed options, with ``overrides`` (words ``--key.sub=value`` for
    the recipe) and ``command`` (the whole command line), and returns an exit status or None. examples:
    commands, shown below the options. note: a paragraph, shown above the examples.

    keys: selects the keys of a recipe that the verb takes as options. short: a second, shorter option for
    some of these keys. defaults: the verb's own defaults of keys, for
    the help; ``run`` applies them. from_checkpoint: all other defaults are
    those of a checkpoint, not of the schema.
    """

    name: str
    text: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]
    examples: tuple[str, ...]
    note: str = ""
    keys: Callable[[Key], bool] = lambda key: False
    short: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    from_checkpoint: bool = False


def of_detector(*data: str) -> Callable[[Key], bool]:
    """Return a filter for the keys of section ``predict`` and those of section ``data`` that are given."""
    names = {f"data.{name}" for name in data}
    return lambda key: key.section == "predict" or key.name in names


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument("--device", help=DEVICE)


def add_devices(parser: argparse.ArgumentParser) -> None:
    """Add ``--devices N``."""
    parser.add_argument("--devices", type=int, default=1, metavar="N", help=DEVICES)
