"""``fsaf tune``."""

import argparse
from pathlib import Path

from fsaf.cli.verb import Verb
from fsaf.console import guarded_output
from fsaf.errors import UserError


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="YAML file of a recipe, or name of a shipped recipe")
    parser.add_argument(
        "--trials", type=int, default=20, metavar="N", help="trainings in all, with those already in DIR (20)"
    )
    parser.add_argument("--hours", type=float, metavar="H", help="start no training after so many hours")
    parser.add_argument(
        "--out", default="runs/tune", metavar="DIR", help="folder of the study, which continues (runs/tune)"
    )


def run(args: argparse.Namespace) -> None:
    from fsaf.recipe import load_recipe
    from fsaf.training.tune import tune

    if args.trials < 1:
        raise UserError(f"--trials {args.trials}: must be at least 1")
    if args.hours is not None and args.hours <= 0:
        raise UserError(f"--hours {args.hours:g}: must be above 0")
    config = load_recipe(args.config, args.overrides)
    fixed = [word.removeprefix("--").partition("=")[0] for word in args.overrides]
    words = [args.config, *args.overrides]
    with guarded_output(lasting=True):
        line = tune(config, Path(args.out), trials=args.trials, hours=args.hours, fixed=fixed, words=words)
        print(line)


VERB = Verb(
    name="tune",
    text="Search learning rate, batch size, augmentation and others for a recipe.",
    options=options,
    run=run,
    keys=lambda key: key.name not in ("out", "resume"),
    note="A setting that you give is not searched.",
    examples=(
        "fsaf tune lite0 --data.root DATA --out runs/tune",
        "fsaf tune lite0 --data.root DATA --out runs/tune --trials 50 --hours 12",
        "fsaf tune lite0 --data.root DATA --out runs/tune-light --data.augment light",
    ),
)
