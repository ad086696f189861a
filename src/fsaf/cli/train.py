"""``fsaf train``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fsaf.cli.processes import check_devices, in_processes
from fsaf.cli.report import draw_report
from fsaf.cli.verb import Verb, add_devices
from fsaf.console import guarded_output
from fsaf.errors import UserError
from fsaf.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from fsaf.config import Config
    from fsaf.training.callbacks import Callback


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        help="YAML file of a recipe, or name of a shipped recipe; not with --resume RUN",
    )
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
    parser.add_argument(
        "--preview",
        metavar="FILE",
        help="write a picture of the first training images as the network would see them, and do not train",
    )


def run(args: argparse.Namespace) -> None:
    config = read_config(args.config, args.overrides)
    if args.preview is not None:
        _preview(config, args.preview, args.devices, args.dry_run)
    elif args.dry_run:
        _dry_run(config, args.devices)
    else:
        in_processes("train", _train, (config, args.command), args.devices, args.max_restarts)


def read_config(recipe: str | None, overrides: Sequence[str]) -> "Config":
    """Return the recipe with overrides, or with ``--resume RUN`` the settings of that run with overrides.

    overrides: words ``--key=value``. Raises UserError if the recipe is missing or a setting is wrong.
    """
    from fsaf.recipe import load_recipe

    run = next((each.partition("=")[2] for each in reversed(overrides) if each.startswith("--resume=")), None)
    if run is None or run.lower() in ("true", "false", "auto"):
        if recipe is None:
            hint = f"; --resume {run} belongs to a recipe with --out RUN" if run else ""
            raise UserError(f"give a recipe, or --resume RUN to resume the run in folder RUN{hint}")
        return load_recipe(recipe, overrides)
    if recipe is not None and not Path(run).is_dir():
        return load_recipe(recipe, overrides)  # which says that the word is wrong
    if recipe is not None:
        raise UserError(f"{recipe} --resume {run}: give either a recipe or --resume RUN, not both")
    if any(each.startswith("--out=") for each in overrides):
        raise UserError(f"--out: leave it out with --resume {run}, which goes on in that folder")
    settings = Path(run) / "config.yaml"
    if not settings.is_file():
        raise UserError(f"--resume {run}: is not a run folder; it has no config.yaml")
    others = [each for each in overrides if not each.startswith("--resume=")]
    return load_recipe(str(settings), [*others, f"--out={run}", "--resume=true"])


def train_and_report(
    config: "Config",
    command: str,
    console: "Console | None" = None,
    callbacks: Sequence["Callback"] = (),
) -> Path:
    """Train, write the report of the run folder, and return the folder; arguments as in ``trainer.train``.

    A report that cannot be written is a note, not an error.
    """
    from fsaf.processes.group import is_main
    from fsaf.training.trainer import train

    out = train(config, console, callbacks=callbacks, command=command)
    if is_main():
        draw_report(out, console=console)
    return out


def _train(config: "Config", command: str) -> None:
    with guarded_output(lasting=True):
        train_and_report(config, command)


def _preview(config: "Config", file: str, devices: int, dry_run: bool) -> None:
    from fsaf.training.preview import write_preview

    if dry_run:
        raise UserError("give either --preview or --dry-run, not both")
    check_devices(devices)
    write_preview(config, Path(file), devices)
    print(printable(file))


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
        "fsaf train lite0 --data.root DATA --data.augment strong --preview seen.png",
        "fsaf train mine.yaml --train.precision bf16 --devices 4 --resume auto",
        "fsaf train --resume runs/mine",
        "fsaf train lite0 --data.root DATA --init runs/other/checkpoints/best.pt",
    ),
)
