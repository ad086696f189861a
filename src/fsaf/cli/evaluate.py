"""``fsaf evaluate``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fsaf.cli.detectors import add_checkpoint, choose, open_detector
from fsaf.cli.processes import in_processes
from fsaf.cli.report import draw_report
from fsaf.cli.verb import EVALUATION, Verb, add_device, add_devices, of_detector
from fsaf.errors import UserError
from fsaf.text import printable


def options(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument(
        "--out", metavar="FOLDER", help="folder for evaluation.json and predictions.json (the run folder)"
    )
    add_device(parser)
    add_devices(parser)


def run(args: argparse.Namespace) -> None:
    arguments = (choose(args.checkpoint), args.overrides, args.out, args.device, args.command)
    in_processes("evaluate", _evaluate, arguments, args.devices)


def _evaluate(
    checkpoint: str, overrides: Sequence[str], out: str | None, device: str | None, command: str
) -> None:
    from rich.console import Console

    from fsaf.checkpoints.published import PUBLISHED, figures_of, is_val2017
    from fsaf.data.readers.splits import check_images, notes_on, open_split
    from fsaf.detection.detector import is_exported
    from fsaf.device import HOST
    from fsaf.processes import group
    from fsaf.processes.join import join
    from fsaf.reporting.reproduction import compare
    from fsaf.run_folder.commands import note_command
    from fsaf.run_folder.paths import is_file, run_folder
    from fsaf.scoring.evaluate import evaluate
    from fsaf.scoring.results import write_evaluation
    from fsaf.scoring.table import format_table

    path = Path(checkpoint)
    if not out and not is_file(path):
        raise UserError(f"{path}: is not a file in a run folder; choose where to write with --out FOLDER")
    folder = Path(out) if out else run_folder(path)
    exported = is_exported(path)  # another runtime has the device; PyTorch need not know it
    with join(HOST if exported else device or "auto") as own, group.locked(folder, "evaluate"):
        detector = open_detector(checkpoint, overrides, device if exported else own, fold=False)
        data = detector.config.data
        records = open_split(data, "val", detector.classes)
        check_images(records, data)
        for note in notes_on(records) if group.is_main() else []:
            print(f"note: {printable(note)}", file=sys.stderr)
        metrics, predictions = evaluate(detector, records, data, Console(stderr=True))
        if not group.is_main():
            return
        print(format_table(metrics))
        print(f"\n{metrics['images']} images at {metrics['images_per_second']:.1f} img/s")
        if checkpoint in PUBLISHED and is_val2017(metrics["images"], detector.classes.names):
            for row in compare(figures_of(PUBLISHED[checkpoint].recipe), metrics):
                print(row.line)
        write_evaluation(folder, metrics, predictions, data, detector.classes)
        note_command(folder, detector.network.device, command)
    print(printable(f"written: {folder / 'evaluation.json'}, {folder / 'predictions.json'}"))
    draw_report(folder, records)


VERB = Verb(
    name="evaluate",
    text="Score a detector on a data set with COCO's metrics.",
    options=options,
    run=run,
    keys=of_detector(*EVALUATION),
    from_checkpoint=True,
    examples=(
        "fsaf evaluate runs/mine",
        "fsaf evaluate model.onnx --data.root DATA --out scores",
        "fsaf evaluate fsaf_r50_coco --data.root COCO --out scores",
    ),
)
