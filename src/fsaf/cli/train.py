"""``fsaf train``."""

import argparse
from typing import TYPE_CHECKING

from fsaf.cli.processes import check_devices, in_processes
from fsaf.cli.report import draw_report
from fsaf.cli.verb import Verb, add_devices

if TYPE_CHECKING:
    from fsaf.config import Config


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="YAML file of a recipe, or name of a shipped recipe")
    add_devices(parser)
    parser.add_argument(
        "--max-restarts",
        type=int,
        default=3,
        metavar="N",
        help="with --devices: if a process dies, restart all from last.pt, at most this often (3)",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, run one step, show the plan and its cost; write nothing",
    )


def run(args: argparse.Namespace) -> None:
    from fsaf.recipe import load_recipe

    config = load_recipe(args.config, args.overrides)
    if args.dry_run:
        _dry_run(config, args.devices)
    else:
        in_processes("train", _train, (config, args.command), args.devices, args.max_restarts)


def _train(config: "Config", command: str) -> None:
    from fsaf.processes.group import is_main
    from fsaf.training.trainer import train

    out = train(config)
    if is_main():
        print(f"trained; everything is in {out}")
        draw_report(out)


def _dry_run(config: "Config", devices: int) -> None:
    from rich.console import Console

    from fsaf.measuring.dry_run import dry_run
    from fsaf.measuring.dry_run_text import format_dry_run

    check_devices(devices)
    console = Console(stderr=True)
    plan = dry_run(config, devices, say=lambda text: console.print(text, style="dim", markup=False))
    print(format_dry_run(plan))


VERB = Verb(
    name="train",
    text="Train a detector on a recipe.",
    options=options,
    run=run,
    keys=lambda key: True,
    examples=(
        "fsaf train lite0 --data.root DATA --out runs/mine",
        "fsaf train lite0 --data.root DATA --out runs/mine --dry-run",
        "fsaf train mine.yaml --train.precision bf16 --devices 4 --resume auto",
        "fsaf train lite0 --data.root DATA --init runs/other/checkpoints/best.pt",
    ),
)
