"""``fsaf info``."""

import argparse
import json

from fsaf.cli.verb import DEVICE, Verb


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help=DEVICE)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from fsaf.cli.machine import describe_machine, format_machine

    machine = describe_machine(args.device)
    print(json.dumps(machine, indent=1) if args.json else format_machine(machine))


VERB = Verb(
    name="info",
    text="Show versions, devices, and what fsaf would use on this machine.",
    options=options,
    run=run,
    examples=("fsaf info", "fsaf info --json"),
)
