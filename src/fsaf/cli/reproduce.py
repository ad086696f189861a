"""``fsaf reproduce``."""

import argparse
from typing import TYPE_CHECKING

from fsaf.cli.processes import in_processes
from fsaf.cli.train import read_config, train_and_report
from fsaf.cli.verb import Verb, add_devices
from fsaf.console import guarded_output
from fsaf.errors import UserError
from fsaf.text import printable

if TYPE_CHECKING:
    from fsaf.config import Config


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="name of a recipe with a published figure")
    add_devices(parser)


def run(args: argparse.Namespace) -> None:
    from fsaf.reporting.reproduction import check_recipe

    check_recipe(args.recipe)
    resumes = any(word.startswith("--resume=") for word in args.overrides)
    config = read_config(args.recipe, [*args.overrides, *([] if resumes else ["--resume=auto"])])
    if not config.train.evaluate_every:
        raise UserError("train.evaluate_every = 0: the last epoch must be evaluated to be compared")
    in_processes("reproduce", _reproduce, (config, args.recipe, args.command), args.devices)


def _reproduce(config: "Config", recipe: str, command: str) -> None:
    from fsaf.processes.group import is_main
    from fsaf.reporting.reproduction import write_reproduction

    with guarded_output(lasting=True):
        out = train_and_report(config, command)
        if not is_main():
            return
        page, lines = write_reproduction(out, recipe)
        for line in [*lines, f"page: {page}"]:
            print(printable(line))


VERB = Verb(
    name="reproduce",
    text="Train a published recipe, or resume it, and compare with the published figure.",
    options=options,
    run=run,
    keys=lambda key: True,
    defaults={"resume": "auto"},
    examples=(
        "fsaf reproduce fsaf_r50_fpn_1x_coco --data.root COCO --devices 8",
        "fsaf reproduce fsaf_r50_fpn_1x_coco --data.root COCO --train.max_steps 20 --out runs/rehearsal",
    ),
)
