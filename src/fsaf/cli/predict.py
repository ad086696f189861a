"""``fsaf predict``."""

import argparse
import sys
from pathlib import Path

from fsaf.cli.detectors import add_checkpoint, choose, looks_like_pictures, open_detector
from fsaf.cli.verb import RESIZING, Verb, add_device, of_detector
from fsaf.config.predict import SHOWN_SCORE
from fsaf.errors import UserError
from fsaf.text import counted, printable

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
        help="image and video files, folders (searched recursively), glob patterns, camera:0, addresses "
        "(http, https, rtsp, ...), - for a picture on standard input",
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
        "--save-txt", action="store_true", help="also write OUT/labels/NAME.txt, lines of YOLO with scores"
    )
    parser.add_argument("--save-csv", metavar="FILE", help="also write a table with a row for each detection")
    parser.add_argument("--save-coco", metavar="FILE", help="also write COCO's results format")
    parser.add_argument(
        "--coco-ids",
        metavar="FILE",
        help="annotations in COCO's format with the image ids for --save-coco (numbers from 1, in order)",
    )
    parser.add_argument(
        "--track", action="store_true", help="number objects in videos, the same in every frame"
    )
    parser.add_argument(
        "--show-levels", action="store_true", help="colour boxes by the pyramid level that detected them"
    )
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="images per batch (1)")
    add_device(parser)


def run(args: argparse.Namespace) -> int:
    """Return exit status 1 if some of the inputs cannot be read or are damaged."""
    from fsaf.annotation.annotate import Output, annotate
    from fsaf.annotation.sources import find_sources
    from fsaf.annotation.tables import TableFiles

    if args.coco_ids and not args.save_coco:
        raise UserError("--coco-ids: is for --save-coco FILE, which is not given")
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
        folder=folder,
        json=args.format == "json",
        crops=args.save_crops,
        show_levels=args.show_levels,
        tables=TableFiles(
            txt=args.save_txt,
            coco=Path(args.save_coco) if args.save_coco else None,
            ids=Path(args.coco_ids) if args.coco_ids else None,
            csv=Path(args.save_csv) if args.save_csv else None,
        ),
        track=args.track,
    )
    detector = open_detector(choose(args.checkpoint), args.overrides, args.device)
    given = any(word.startswith("--predict.score_threshold=") for word in args.overrides)
    settings = detector.config.predict if given else detector.shown
    bad = annotate(detector, sources, output, args.batch_size, settings)
    if bad:
        print(
            f"fsaf predict: {bad} of {counted(len(sources), 'input')} could not be read, or not in full",
            file=sys.stderr,
        )
    return 1 if bad else 0


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
        "fsaf predict runs/mine clip.mp4 --track --save-csv found.csv",
        "fsaf predict runs/mine scan.png --tile 640 --predict.flip true",
    ),
)
