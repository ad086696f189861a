"""``fsaf models``."""

import argparse
import json

from fsaf.cli.verb import Verb


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> None:
    from fsaf.checkpoints.published import PUBLISHED, cache
    from fsaf.text import columns, printable

    if args.json:
        print(json.dumps([one.to_dict() for one in PUBLISHED.values()], indent=1))
        return
    rows = [("name", "AP", "weights", "download", "licence", "on this machine")]
    for one in PUBLISHED.values():
        there = "yes" if one.path.is_file() else "no"
        weights, size = f"{one.parameters:.1f} M", f"{one.megabytes:.0f} MB"
        rows.append((one.name, f"{one.ap:.1f}", weights, size, one.licence, there))
    print(columns(rows, "lrrrl"))
    print(
        "\nAP: COCO val2017, as published by MMDetection, which trained them; 80 classes.\nDownloaded at "
        f"first use to {printable(cache())} (FSAF_HOME names another folder)."
    )


VERB = Verb(
    name="models",
    text="List the trained detectors that can be used by name.",
    options=options,
    run=run,
    examples=("fsaf models", "fsaf models --json"),
)
