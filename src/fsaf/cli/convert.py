"""``fsaf convert``."""

import argparse
from pathlib import Path

from fsaf.cli.verb import Verb
from fsaf.text import printable


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", help="checkpoint in any of these formats")
    parser.add_argument("target", metavar="OUT", help=".pt (fsaf), .safetensors, or .pth (MMDetection)")
    parser.add_argument(
        "--format",
        choices=("fsaf", "safetensors", "mmdetection"),
        metavar="fsaf|safetensors|mmdetection",
        help="format of OUT, if its suffix does not tell",
    )


def run(args: argparse.Namespace) -> None:
    from fsaf.checkpoints.any_format import convert

    checkpoint = convert(Path(args.source), Path(args.target), args.format)
    names = checkpoint.classes.names
    backbone = checkpoint.config.model.backbone
    listed = ", ".join(names[:5])
    print(printable(f"{args.source} -> {args.target}: {backbone}, {len(names)} classes ({listed}...)"))


VERB = Verb(
    name="convert",
    text="Convert a checkpoint between fsaf, safetensors and MMDetection.",
    options=options,
    run=run,
    examples=(
        "fsaf convert fsaf_r50_fpn_1x_coco.pth fsaf_r50.pt",
        "fsaf convert runs/mine/checkpoints/best.pt mine.safetensors",
    ),
)
