"""``fsaf benchmark``."""

import argparse
import json

from fsaf.cli.verb import Verb
from fsaf.errors import UserError


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        default="fsaf_r50_fpn_1x_coco",
        help="YAML file of a recipe, or name of a shipped recipe (fsaf_r50_fpn_1x_coco)",
    )
    parser.add_argument("--seconds", type=float, default=10, metavar="N", help="time for each part (10)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from rich.console import Console

    from fsaf.measuring.benchmark import benchmark
    from fsaf.measuring.benchmark_text import format_benchmark
    from fsaf.recipe import load_recipe

    if not args.seconds > 0:
        raise UserError(f"--seconds {args.seconds:g}: must be above 0")
    config = load_recipe(args.config, args.overrides)
    console = Console(stderr=True)
    figures = benchmark(
        config, seconds=args.seconds, say=lambda text: console.print(text, style="dim", markup=False)
    )
    print(json.dumps(figures, indent=1) if args.json else format_benchmark(figures))


VERB = Verb(
    name="benchmark",
    text="Measure how fast a recipe runs on this machine.",
    options=options,
    run=run,
    keys=lambda key: key.name not in ("init", "resume", "out"),
    examples=("fsaf benchmark lite0", "fsaf benchmark lite0 --data.batch_size 16 --train.precision bf16"),
)
