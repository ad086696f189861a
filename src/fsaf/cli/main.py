"""The command line: its options, its messages and exit statuses.

Exit status: 0 success, 2 a user's mistake (one message, no traceback), 130 stopped by Ctrl-C, 143 by SIGTERM
(``fsaf train`` has saved everything then), 1 anything else.
"""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

from fsaf._version import __version__
from fsaf.cli import verbs
from fsaf.cli.help import SHELLS, Parser, add_keys, epilog, options_of
from fsaf.environment import set_environment
from fsaf.errors import Stopped, UserError, printable
from fsaf.keys import Key, nearest_key, recipe_keys, with_new_name

RESIZING = ("short_side", "long_side", "antialias", "exif_rotation", "shapes", "pad", "max_pixels")
EVALUATION = ("root", "val.annotations", "val.images", "batch_size", "workers", *RESIZING)
"""Keys of a recipe's section ``data`` that detecting on images, and evaluation, go by."""


def make_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of all verbs. What overrides the recipe is collected in ``overrides``.

    only: the one verb whose parser needs its options for keys of a recipe, which are many and take a while.
    """
    parser = Parser(prog="fsaf", description="FSAF, an anchor-free object detector.")
    parser.add_argument("--version", action="version", version=f"fsaf {__version__}")
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    keys = recipe_keys() if only != "" else []

    def verb(name: str, function: Any, text: str) -> argparse.ArgumentParser:
        child = subparsers.add_parser(name, help=text, description=text, epilog=epilog(name))
        child.set_defaults(function=function, overrides=[])
        return child

    def add_keys_to(child: argparse.ArgumentParser, some: Sequence[Key]) -> None:
        if only is None or child.prog == f"fsaf {only}":
            add_keys(child, some)

    def of_detector(data: Sequence[str]) -> list[Key]:
        names = [f"data.{name}" for name in data]
        return [key for key in keys if key.section == "predict" or key.name in names]

    device = "auto (an accelerator if there is one), cpu, cuda, npu, ..."

    devices = "processes on this machine, one a device (1); many machines: docs/many-devices.md"

    child = verb("train", verbs.train, "Train a detector as a recipe says.")
    child.add_argument("config", metavar="CONFIG", help="a recipe's YAML file, or the name of a shipped one")
    child.add_argument("--devices", type=int, default=1, metavar="N", help=devices)
    child.add_argument(
        "--max-restarts",
        type=int,
        default=3,
        metavar="N",
        help="with --devices: where a process dies, start all again from last.pt, this often (3)",
    )
    child.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, try a step, show what training would do and take; writes nothing",
    )
    add_keys_to(child, keys)

    child = verb("evaluate", verbs.evaluate, "Score a detector on a data set with COCO's metrics.")
    child.add_argument("checkpoint", metavar="CHECKPOINT", help="a .pt, .onnx or .om file")
    child.add_argument("--out", help="folder for evaluation.json and predictions.json (the run's)")
    child.add_argument("--device", help=device)
    child.add_argument("--devices", type=int, default=1, metavar="N", help=devices)
    add_keys_to(child, of_detector(EVALUATION))

    child = verb("report", verbs.report, "Show a run on one page, or compare runs side by side.")
    child.add_argument("runs", metavar="RUN", nargs="+", help="run folders; several are compared")
    child.add_argument(
        "--out", metavar="FILE", help="page to write (RUN/report.html; of several report-comparison.html)"
    )

    child = verb(
        "predict",
        verbs.predict,
        "Detect objects in images and videos; write annotated images and videos, or JSON lines.",
    )
    child.add_argument("checkpoint", metavar="CHECKPOINT", help="a .pt, .onnx or .om file")
    child.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="image and video files, folders with all below them, glob patterns, camera:0",
    )
    child.add_argument(
        "--format", choices=("images", "json"), default="images", help="what to write (images)"
    )
    child.add_argument("--out", default="predictions", help="folder of what is written (predictions)")
    child.add_argument(
        "--save-crops", action="store_true", help="write each detection as OUT/crops/CLASS/NAME_000.png too"
    )
    child.add_argument(
        "--tile",
        type=int,
        metavar="SIZE",
        help="see larger images in tiles of this side, in their pixels, too",
    )
    child.add_argument(
        "--tile-overlap", type=float, metavar="SHARE", help="what neighbouring tiles share (0.2)"
    )
    child.add_argument("--score-threshold", type=float, default=0.3, help="lowest score shown (0.3)")
    child.add_argument("--max-detections", type=int, help="most detections of an image")
    child.add_argument(
        "--show-levels", action="store_true", help="colour boxes by the pyramid level that found them"
    )
    child.add_argument("--short-side", type=int, help="resize to this short side at most, in pixels")
    child.add_argument("--long-side", type=int, help="and this long side at most")
    child.add_argument("--pad", type=int, help="pad to a multiple of this instead of the recipe's shapes")
    child.add_argument("--batch-size", type=int, default=1, help="images run together (1)")
    child.add_argument("--device", help=device)
    add_keys_to(child, of_detector(RESIZING))

    child = verb("export", verbs.export, "Write a checkpoint as ONNX and check the file against PyTorch.")
    child.add_argument("checkpoint", metavar="CHECKPOINT", help="a .pt file, or MMDetection's .pth")
    child.add_argument("--out", help="file to write (the checkpoint's name with .onnx)")
    child.add_argument(
        "--size", type=int, nargs=2, metavar=("H", "W"), help="input size (the recipe's first)"
    )
    child.add_argument("--batch", type=int, default=1, help="images a run; 0 leaves it free (1)")
    child.add_argument("--opset", type=int, help="ONNX opset (what PyTorch prefers)")
    child.add_argument("--raw", action="store_true", help="logits and boxes of all locations, no NMS")
    child.add_argument(
        "--float-images",
        action=argparse.BooleanOptionalAction,
        help="take float32 0..255 instead of uint8 (uint8; for ascend float32)",
    )
    child.add_argument(
        "--fixed-size",
        action="store_true",
        help="one input, without sizes: padding holds the mean colour",
    )
    child.add_argument(
        "--for",
        dest="target",
        choices=("ascend",),
        help="write what Ascend's compiler ATC reads, and print its command",
    )
    child.add_argument("--images", nargs="+", help="images to check the file on (the recipe's val split)")
    child.add_argument("--check", type=int, default=8, help="how many of them (8)")
    child.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    add_keys_to(child, of_detector(EVALUATION))

    child = verb("publish", verbs.publish, "Write a folder for the Hugging Face hub, with a model card.")
    child.add_argument("checkpoint", metavar="CHECKPOINT", help="a .pt file of a run that was evaluated")
    child.add_argument("--out", help="folder to write (RUN/hub, or the checkpoint's name with -hub)")
    child.add_argument("--name", help="what the card calls the detector (the run folder's name)")
    child.add_argument("--dataset", metavar="NAME", help="what the card calls the data (its folder's name)")
    child.add_argument(
        "--license", metavar="ID", help="of the weights, as the hub abbreviates it: apache-2.0"
    )
    child.add_argument(
        "--evaluation", metavar="FILE", help="figures for the card (evaluation.json of the run)"
    )
    child.add_argument("--upload", metavar="USER/NAME", help="upload the folder; without it nothing leaves")
    child.add_argument("--private", action="store_true", help="with --upload: for you alone")

    child = verb("convert", verbs.convert, "Convert a checkpoint between fsaf, safetensors and MMDetection.")
    child.add_argument("source", metavar="IN", help="a checkpoint of any of these, told apart by content")
    child.add_argument("target", metavar="OUT", help=".pt (fsaf), .safetensors, or .pth (MMDetection)")
    child.add_argument(
        "--format", choices=("fsaf", "safetensors", "mmdetection"), help="instead of by suffix"
    )

    child = verb(
        "check", verbs.check, "Read a data set once and report every fault, or plan batch shapes for it."
    )
    child.add_argument(
        "data", metavar="DATA", help="folder of a data set (COCO, Pascal VOC, YOLO), or its file"
    )
    child.add_argument("--shapes", type=int, metavar="N", help="plan N batch shapes and show their waste")
    child.add_argument("--short-side", type=int, default=800, help="short side at most, in pixels (800)")
    child.add_argument("--long-side", type=int, default=1333, help="long side at most, in pixels (1333)")
    child.add_argument("--fix", metavar="OUT", help="write clean COCO JSON files into this folder")
    child.add_argument("--report", metavar="FILE", help="write everything found to this file, as JSON")
    child.add_argument("--json", action="store_true", help="print that instead of tables")
    child.add_argument("--no-images", action="store_true", help="only what annotations tell; opens no image")
    child.add_argument("--max-pixels", type=int, default=100_000_000, help="as data.max_pixels (100000000)")
    child.add_argument("--exif-rotation", action="store_true", help="as data.exif_rotation")
    child.epilog = epilog(
        "check",
        "Exit status: 0 where training would take the data (it may leave boxes or images out, and says so), "
        "2 where it would refuse it. docs/your-data.md lists what is refused, left out and warned about.",
    )

    child = verb("benchmark", verbs.benchmark, "Measure how fast a recipe runs on the device at hand.")
    child.add_argument(
        "config",
        metavar="CONFIG",
        nargs="?",
        default="fsaf_r50_fpn_1x_coco",
        help="a recipe's YAML file, or the name of a shipped one (fsaf_r50_fpn_1x_coco)",
    )
    child.add_argument("--device", help=device)
    child.add_argument("--seconds", type=float, default=10, help="how long each part is repeated (10)")
    child.add_argument("--json", action="store_true", help="as JSON")
    add_keys_to(child, [key for key in keys if key.name not in ("init", "resume", "out", "device")])

    child = verb("demo", verbs.demo, "Show a page to try a detector on pictures, on this machine only.")
    child.add_argument(
        "checkpoint", metavar="CHECKPOINT", nargs="*", help=".pt, .pth, .onnx or .om files (those in runs/)"
    )
    child.add_argument("--host", default="127.0.0.1", help="address to serve on (127.0.0.1)")
    child.add_argument("--port", type=int, default=7860, help="port to serve on (7860)")
    child.add_argument("--device", help=device)

    child = verb("info", verbs.info, "Show versions, devices, and what is chosen on this machine.")
    child.add_argument("--device", default="auto", help=device)
    child.add_argument("--json", action="store_true", help="as JSON")

    child = verb("quickstart", verbs.quickstart, "Make a small data set, train on it, and show every step.")
    child.add_argument("--out", default="runs/quickstart", help="run folder (runs/quickstart)")
    add_keys_to(child, [key for key in keys if key.name != "out"])

    child = verb("completion", completion, "Print a script that completes fsaf's commands in a shell.")
    child.add_argument("shell", metavar="SHELL", choices=SHELLS, help=", ".join(SHELLS))
    return parser


def completion(args: argparse.Namespace, _: Sequence[str]) -> None:
    """``fsaf completion``."""
    from fsaf.cli.completion import completion as script

    print(script(make_parser(), args.shell))


def _refuse(verb: str, unknown: Sequence[str]) -> None:
    """Raise UserError for arguments that verb ``verb`` does not know: for the first option among them."""
    given = next((word for word in unknown if word.startswith("-")), unknown[0])
    option = given.split("=")[0]
    if not option.startswith("-"):
        raise UserError(f"unexpected argument {given!r}; see fsaf {verb} --help")
    known = options_of(make_parser())
    if others := [name for name, options in known.items() if option in options]:
        raise UserError(
            f"unrecognized option {option}: it belongs to fsaf {', '.join(others)}; fsaf {verb} --help lists "
            "its own"
        )
    near = nearest_key(option, known[verb])
    raise UserError(f"unrecognized option {option}{near}; fsaf {verb} --help lists all")


def _tells() -> bool:
    """Whether this process, perhaps one of many that stop at the same mistake, is the one to print it."""
    if "LOCAL_RANK" not in os.environ:
        return True
    from fsaf.processes.group import tells

    return tells()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    words = [with_new_name(word) for word in (sys.argv[1:] if argv is None else argv)]
    set_environment()
    verb = next((word for word in words if not word.startswith("-")), "")
    args, unknown = make_parser(verb).parse_known_args(words)
    try:
        if unknown:
            _refuse(args.verb, unknown)
        return args.function(args, args.overrides) or 0
    except UserError as error:
        if _tells():
            print(f"fsaf {args.verb}: {printable(error)}", file=sys.stderr)
        return 2
    except Stopped as stopped:
        if _tells():
            print(f"fsaf {args.verb}: {stopped}", file=sys.stderr)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        print(f"fsaf {args.verb}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        if _tells():
            print(f"fsaf {args.verb}: {printable(error.filename)}: {error.strerror}", file=sys.stderr)
        return 2
    return 0
