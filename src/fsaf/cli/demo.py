"""``fsaf demo``."""

import argparse
from pathlib import Path

from fsaf.cli.detectors import CHECKPOINT, choose
from fsaf.cli.verb import Verb, add_device


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", nargs="*", help=CHECKPOINT)
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="port to serve on (7860)")
    add_device(parser)


def run(args: argparse.Namespace) -> None:
    from fsaf.demo.page import find_models, serve

    chosen = [Path(choose(name)) for name in args.checkpoint or [None]]
    models = find_models(chosen, None if args.checkpoint else Path("runs"))
    serve(models, args.device, args.host, args.port)


VERB = Verb(
    name="demo",
    text="Serve a page on this machine to try a detector on pictures.",
    options=options,
    run=run,
    examples=("fsaf demo", "fsaf demo runs/mine fsaf_r50_coco"),
)
