"""``fsaf quickstart``."""

import argparse
from pathlib import Path

from fsaf.cli.verb import Verb
from fsaf.console import guarded_output


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", default="runs/quickstart", metavar="FOLDER", help="run folder (runs/quickstart)"
    )


def run(args: argparse.Namespace) -> None:
    from fsaf.cli.tour import tour

    with guarded_output(lasting=True):
        tour(Path(args.out), args.overrides, args.command)


VERB = Verb(
    name="quickstart",
    text="Make a small data set, train on it, and show every step.",
    options=options,
    run=run,
    keys=lambda key: key.name != "out",
    examples=("fsaf quickstart", "fsaf quickstart --out runs/again --train.epochs 2"),
)
