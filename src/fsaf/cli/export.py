"""``fsaf export``."""

import argparse
from pathlib import Path

from fsaf.cli.detectors import add_checkpoint, choose, open_detector
from fsaf.cli.verb import EVALUATION, Verb, of_detector
from fsaf.errors import UserError
from fsaf.text import printable_lines

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}


def options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--out", metavar="FILE", help="file to write (the checkpoint's name with .onnx)")
    parser.add_argument(
        "--format",
        choices=tuple(SUFFIXES),
        help="onnx, or openvino: an .xml file with its .bin (what FILE ends in; else onnx)",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="input size (any, unless the recipe has one shape)",
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="batch size; 0 for a dynamic one (1)"
    )
    parser.add_argument("--opset", type=int, metavar="N", help="ONNX opset (PyTorch's default)")
    parser.add_argument(
        "--raw", action="store_true", help="output logits and boxes of all locations, without NMS"
    )
    parser.add_argument(
        "--float-images",
        action=argparse.BooleanOptionalAction,
        help="take float32 images, 0..255, instead of uint8 (default only with --for ascend)",
    )
    parser.add_argument(
        "--fixed-size",
        action="store_true",
        help="leave out the input `sizes`; the caller fills padding with the mean colour",
    )
    parser.add_argument(
        "--for",
        dest="target",
        choices=("ascend",),
        metavar="ascend",
        help="write a file for Ascend's compiler ATC, and print its command",
    )
    parser.add_argument(
        "--fp16",
        action="store_true",
        help="write the network in float16, half the size; prints AP before, after",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="quantise to 8 bits, calibrated on 64 training images or --images; prints AP before, after",
    )
    parser.add_argument(
        "--standalone",
        action="store_true",
        help="write a script beside the file that runs it without PyTorch and fsaf",
    )
    parser.add_argument(
        "--web",
        metavar="FOLDER",
        help="also write a folder with a page that runs the file in the browser, offline",
    )
    parser.add_argument(
        "--images", nargs="+", metavar="IMAGE", help="images to check the file on (the val split)"
    )
    parser.add_argument("--check", type=int, default=8, metavar="N", help="number of images to check on (8)")
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> None:
    from fsaf.annotation.sources import find_sources
    from fsaf.data.readers.splits import open_split
    from fsaf.exporting.ascend import ascend_commands
    from fsaf.exporting.export import export_detector
    from fsaf.exporting.web import how_to_open

    checkpoint = choose(args.checkpoint)
    detector = open_detector(checkpoint, args.overrides, args.device, fold=False)
    if args.images:
        pictures = [Path(source.name) for source in find_sources(args.images)[0] if not source.video]
        calibrate = pictures
    else:
        try:
            pictures = [record.path for record in open_split(detector.config.data, "val").images]
            train = open_split(detector.config.data, "train").images if args.int8 else []
            calibrate = [record.path for record in train]
        except UserError as error:
            raise UserError(
                f"no images to check the file on ({error}); give some with --images IMAGE"
            ) from error
    report = export_detector(
        detector,
        _out(args, checkpoint),
        pictures[: args.check],
        size=tuple(args.size) if args.size else None,
        target=args.target,
        standalone=args.standalone,
        web=Path(args.web) if args.web else None,
        fp16=args.fp16,
        calibrate=calibrate if args.int8 else None,
        batch=args.batch or 1,
        dynamic_batch=args.batch == 0,
        opset=args.opset,
        outputs="raw" if args.raw else "detections",
        float_images=args.float_images,
        fixed_size=args.fixed_size,
    )
    print(printable_lines(report.summary()))
    if report.script:
        print(printable_lines(f"{report.script}: runs it with numpy, Pillow and onnxruntime alone"))
    if report.web:
        print(printable_lines(how_to_open(report.web)))
    if args.target:
        print(printable_lines(f"\n{ascend_commands(report.path, report.input_shape)}"))


def _out(args: argparse.Namespace, checkpoint: str) -> Path:
    """Return the path of the file. Raises UserError if its name is not one of the format."""
    from fsaf.run_folder.paths import beside

    suffix = SUFFIXES[args.format or "onnx"]
    out = Path(args.out) if args.out else beside(Path(checkpoint), suffix)
    if args.format and out.suffix != suffix:
        raise UserError(f"{out}: the name of a file of the format {args.format} must end in {suffix}")
    return out


VERB = Verb(
    name="export",
    text="Write a checkpoint as ONNX or OpenVINO and compare the file with PyTorch.",
    options=options,
    run=run,
    keys=of_detector(*EVALUATION),
    from_checkpoint=True,
    examples=(
        "fsaf export runs/mine",
        "fsaf export runs/mine/checkpoints/best.pt --size 384 512 --batch 0",
        "fsaf export runs/mine --format openvino --fp16",
        "fsaf export runs/mine --web page",
        "fsaf export runs/mine/checkpoints/best.pt --for ascend --out fsaf.onnx",
    ),
)
