"""``fsaf predict``."""

import argparse
import sys
from pathlib import Path

from fsaf.cli.detectors import add_checkpoint, choose, looks_like_pictures, open_detector
from fsaf.cli.verb import RESIZING, Verb, add_device, of_detector
from fsaf.config.predict import SHOWN_SCORE
from fsaf.errors import UserError
from fsaf.text import printable

SHORT = {
    "predict.score_threshold": "--score-threshold",
    "predict.max_detections": "--max-detections",
    "predict.classes": "--classes",
    "predict.tile": "--tile",
    "predict.tile_overlap": "--tile-overlap",
    "data.short_side": "--short-side",
    "data.long_side": "--long-side",
    "data.pad": "--pad",
}


def options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="image and video files, folders (searched recursively), glob patterns, camera:0",
    )
    parser.add_argument(
        "--format",
        choices=("images", "json"),
        metavar="images|json",
        default="images",
        help="write annotated images, or print one JSON object per image (images)",
    )
    parser.add_argument("--out", default="predictions", metavar="FOLDER", help="output folder (predictions)")
    parser.add_argument(
        "--save-crops", action="store_true", help="also save each detection as OUT/crops/CLASS/NAME_000.png"
    )
    parser.add_argument(
        "--show-levels", action="store_true", help="colour boxes by the pyramid level that detected them"
    )
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images per batch (1)")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Return exit status 2 if a video is damaged."""
    from fsaf.annotation.annotate import Output, annotate
    from fsaf.annotation.sources import find_sources

    if args.checkpoint is None and not looks_like_pictures(args.images[0]):
        raise UserError(f"{args.images[0]}: give images to detect objects in too; see fsaf predict --help")
    if args.checkpoint is not None and looks_like_pictures(args.checkpoint):
        args.checkpoint, args.images = None, [args.checkpoint, *args.images]
    folder = Path(args.out)
    sources, skipped = find_sources(args.images, folder)
    if skipped:
        print(
            f"note: leaves out {len(skipped)} files in the output folder {printable(folder)}", file=sys.stderr
        )
    output = Output(
        folder=folder, json=args.format == "json", crops=args.save_crops, show_levels=args.show_levels
    )
    detector = open_detector(choose(args.checkpoint), args.overrides, args.device)
    given = any(word.startswith("--predict.score_threshold=") for word in args.overrides)
    settings = detector.config.predict if given else detector.shown
    damaged = annotate(detector, sources, output, args.batch_size, settings)
    return 2 if damaged else 0


VERB = Verb(
    name="predict",
    text="Detect objects in images and videos; write annotated images and videos, or JSON lines.",
    options=options,
    run=run,
    keys=of_detector(*RESIZING),
    short=SHORT,
    defaults={"predict.score_threshold": str(SHOWN_SCORE)},
    from_checkpoint=True,
    examples=(
        "fsaf predict fsaf_r50_coco street.jpg",
        "fsaf predict runs/mine photos/ --out predictions",
        "fsaf predict runs/mine/checkpoints/best.pt photo.jpg --format json",
        "fsaf predict model.onnx clip.mp4 --save-crops",
        "fsaf predict runs/mine scan.png --tile 640 --predict.flip true",
    ),
)
