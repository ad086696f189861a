"""What each verb of the command line does, one function a verb.

What a verb alone needs is imported in its function, so that ``fsaf --help`` need not wait for PyTorch.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsaf.errors import UserError, check_folder, printable

if TYPE_CHECKING:
    import torch

    from fsaf.config import Config
    from fsaf.detection.detector import Detector


def train(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """``fsaf train``."""
    from fsaf.recipe import load_recipe

    config = load_recipe(args.config, overrides)
    if args.dry_run:
        _dry_run(config, args.devices)
        return
    if _in_many(train, args, overrides, args.max_restarts):
        return
    from fsaf.training.trainer import train as run

    out = run(config)
    if os.environ.get("RANK", "0") == "0":
        print(f"trained; everything is in {out}")
        _draw_report(out)


def _dry_run(config: "Config", devices: int) -> None:
    from rich.console import Console

    from fsaf.measuring.dry_run import dry_run, format_dry_run

    _check_devices(devices)
    console = Console(stderr=True)
    found = dry_run(config, devices, say=lambda text: console.print(text, style="dim", markup=False))
    print(format_dry_run(found))


def evaluate(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """``fsaf evaluate``."""
    from rich.console import Console

    from fsaf.data.readers.splits import check_images, notes_on, open_split
    from fsaf.detection.detector import is_exported
    from fsaf.device import HOST
    from fsaf.processes import group
    from fsaf.run_folder.commands import note_command
    from fsaf.scoring.evaluate import evaluate as run
    from fsaf.scoring.evaluate import write_evaluation
    from fsaf.scoring.metrics import format_table

    if _in_many(evaluate, args, overrides):
        return
    checkpoint = Path(args.checkpoint)
    if not args.out and not _is_file(checkpoint):
        raise UserError(f"{checkpoint}: is no file in a run folder; say where to write with --out FOLDER")
    out = Path(args.out) if args.out else _run_folder(checkpoint)
    exported = is_exported(checkpoint)  # its runtime has the device; PyTorch need not know it
    with group.join(HOST if exported else args.device or "auto") as device:
        detector = _open(args, overrides, None if exported else device)
        check_folder(out)
        records = open_split(detector.config.data, "val", detector.classes)
        check_images(records, detector.config.data)
        for note in notes_on(records) if group.is_main() else []:
            print(f"note: {printable(note)}", file=sys.stderr)
        metrics, predictions = run(detector, records, detector.config.data, Console(stderr=True))
        if not group.is_main():
            return
        print(format_table(metrics))
        print(f"\n{metrics['images']} images at {metrics['images_per_second']:.1f} img/s")
        write_evaluation(out, metrics, predictions, detector.config.data, detector.classes)
        note_command(out, detector.network.device)
    print(f"written: {out / 'evaluation.json'}, {out / 'predictions.json'}")
    _draw_report(out)


def report(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """``fsaf report``."""
    from rich.console import Console

    from fsaf.reporting.compare import write_comparison
    from fsaf.reporting.report import write_report

    runs = [Path(name) for name in args.runs]
    for run in runs:
        files = ("config.yaml", "metrics.jsonl", "evaluation.json")
        if run.is_dir() and not any((run / name).is_file() for name in files):
            raise UserError(f"{run}: is not a run folder; it has none of {', '.join(files)}")
    if args.out and Path(args.out).is_dir():
        raise UserError(
            f"--out {args.out}: is a folder; name the page to write, such as {args.out}/report.html"
        )
    with Console(stderr=True).status("drawing the report"):
        if len(runs) == 1:
            path = write_report(runs[0], Path(args.out) if args.out else None)
        else:
            path = write_comparison(runs, Path(args.out or "report-comparison.html"))
    print(path)


def predict(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """``fsaf predict``; the exit status is 2 where a video is damaged."""
    from fsaf.annotation.annotate import Output, annotate
    from fsaf.annotation.sources import find_sources

    options = {
        "data.short_side": args.short_side,
        "data.long_side": args.long_side,
        "data.pad": args.pad,
        "predict.score_threshold": args.score_threshold,
        "predict.max_detections": args.max_detections,
        "predict.tile": args.tile,
        "predict.tile_overlap": args.tile_overlap,
    }
    given = [f"--{key}={value}" for key, value in options.items() if value is not None]
    folder = Path(args.out)
    sources, skipped = find_sources(args.images, folder)
    if skipped:
        print(
            f"note: {len(skipped)} files in {printable(folder)}, where results go, are left out",
            file=sys.stderr,
        )
    output = Output(
        folder=folder, json=args.format == "json", crops=args.save_crops, show_levels=args.show_levels
    )
    damaged = annotate(_open(args, [*given, *overrides]), sources, output, args.batch_size)
    return 2 if damaged else 0


def export(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """``fsaf export``."""
    from fsaf.annotation.sources import find_sources
    from fsaf.data.readers.splits import open_split
    from fsaf.exporting.ascend import ascend_commands
    from fsaf.exporting.export import export_detector

    detector = _open(args, overrides)
    if args.images:
        pictures = [Path(source.name) for source in find_sources(args.images)[0] if not source.video]
    else:
        try:
            pictures = [record.path for record in open_split(detector.config.data, "val").images]
        except UserError as error:
            raise UserError(
                f"no images to check the file on ({error}); give some with --images PATH"
            ) from error
    size = tuple(args.size) if args.size else None
    report = export_detector(
        detector,
        Path(args.out) if args.out else _beside(Path(args.checkpoint), ".onnx"),
        pictures[: args.check],
        size=size,
        target=args.target,
        batch=args.batch or 1,
        dynamic_batch=args.batch == 0,
        opset=args.opset,
        outputs="raw" if args.raw else "detections",
        float_images=args.float_images,
        fixed_size=args.fixed_size,
    )
    print(report.summary())
    if args.target:
        print(f"\n{ascend_commands(report.path, report.input_shape)}")


def publish(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """``fsaf publish``."""
    from fsaf.checkpoints.any_format import read_checkpoint
    from fsaf.checkpoints.hub import check_free, upload, write_folder
    from fsaf.reporting.card import read_figures, write_card

    path = Path(args.checkpoint)
    if args.private and not args.upload:
        raise UserError("--private: is about --upload USER/NAME, which is not given")
    checkpoint = read_checkpoint(path)
    run = _run_folder(path)
    in_run = path.parent.name == "checkpoints"
    out = Path(args.out) if args.out else run / "hub" if in_run else _beside(path, "-hub")
    check_free(out)
    name = args.name or (run.resolve().name if in_run else path.stem)
    figures = read_figures(run, checkpoint, Path(args.evaluation) if args.evaluation else None)
    card = write_card(
        checkpoint,
        figures,
        name=name,
        folder=out.resolve().name,
        dataset=args.dataset,
        repository=args.upload,
        license=args.license,
    )
    write_folder(out, checkpoint, card)
    print(f"written: {out}: weights, config.json, and README.md, the model card to read through")
    if args.upload:
        print(f"uploaded: {upload(out, args.upload, private=args.private)}")
    else:
        print(f"to upload it: hf upload USER/NAME {out}")


def _is_file(checkpoint: Path) -> bool:
    """Whether a checkpoint is a file, there or not, and no folder for the hub or repository there."""
    from fsaf.checkpoints.any_format import is_on_hub

    return not checkpoint.is_dir() and not is_on_hub(checkpoint)


def _run_folder(checkpoint: Path) -> Path:
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def _beside(checkpoint: Path, suffix: str) -> Path:
    """A place for what is made of a checkpoint: beside its file or folder; of a repository on the hub, in the
    working directory."""
    from fsaf.checkpoints.any_format import is_on_hub

    if is_on_hub(checkpoint):
        return Path(Path(checkpoint.as_posix().partition("@")[0]).name + suffix)
    name = checkpoint.name if checkpoint.is_dir() else checkpoint.stem
    return checkpoint.with_name(name + suffix)


def convert(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """``fsaf convert``."""
    from fsaf.checkpoints.any_format import convert as run

    checkpoint = run(Path(args.source), Path(args.target), args.format)
    names = checkpoint["classes"]["names"]
    backbone = checkpoint["config"]["model"]["backbone"]
    listed = printable(", ".join(names[:5]))
    print(f"{args.source} -> {args.target}: {backbone}, {len(names)} classes ({listed}...)")


def info(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """``fsaf info``."""
    from fsaf.cli.info import collect, format_info

    found = collect(args.device)
    print(json.dumps(found, indent=1) if args.json else format_info(found))


def benchmark(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """``fsaf benchmark``."""
    from rich.console import Console

    from fsaf.measuring.benchmark import benchmark as run
    from fsaf.measuring.benchmark import format_benchmark
    from fsaf.recipe import load_recipe

    if not args.seconds > 0:
        raise UserError(f"--seconds {args.seconds:g}: must be above 0")
    device = [f"--device={args.device}"] if args.device else []
    config = load_recipe(args.config, [*device, *overrides])
    console = Console(stderr=True)
    found = run(config, seconds=args.seconds, say=lambda text: console.print(text, style="dim", markup=False))
    print(json.dumps(found, indent=1) if args.json else format_benchmark(found))


def check(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """``fsaf check``; the exit status is 2 where training would refuse the data."""
    from fsaf.checking.fix import list_changes, write_clean
    from fsaf.checking.survey import check_annotations, check_images, read_splits
    from fsaf.checking.text import describe, faults_text, plan_text, report
    from fsaf.config import DataConfig, ObjectiveConfig
    from fsaf.data.readers.formats import find_splits

    if args.shapes is not None and args.shapes < 1:
        raise UserError(f"--shapes {args.shapes}: must be at least 1")
    if args.fix and args.no_images:
        raise UserError("--fix opens every image; leave --no-images out")
    config = DataConfig(  # with the limits that a recipe has
        short_side=args.short_side,
        long_side=args.long_side,
        max_pixels=args.max_pixels,
        exif_rotation=args.exif_rotation,
    )
    splits = find_splits(Path(args.data))
    found = read_splits(splits, config)
    if args.shapes is not None:
        print(plan_text(found, args.shapes, args.short_side, args.long_side))
        return 0
    check_annotations(found, config, ObjectiveConfig())
    told = None if args.no_images else check_images(found, config)
    if args.json:
        print(json.dumps(report(found), indent=1))
    else:
        print(f"{describe(found, args.short_side, args.long_side)}\n\n{faults_text(found)}")
    if args.report:
        _write_json(Path(args.report), report(found))
    if told is not None and args.fix:
        files = write_clean(Path(args.fix), splits, found, told, config)
        where = sys.stderr if args.json else sys.stdout
        changes = len(list_changes(found))
        print(f"\n{changes:,} changes, listed in {files[-1]}; clean annotations:", file=where)
        for file, records in zip(files, found.values(), strict=False):
            print(f"  {file}  of images in {records.folder}", file=where)
    return 2 if any(records.faults.refused for records in found.values()) else 0


def _write_json(path: Path, value: Any) -> None:
    try:
        path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error})") from error


def demo(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """``fsaf demo``."""
    from fsaf.demo.page import find_models, serve

    serve(find_models([Path(name) for name in args.checkpoint]), args.device, args.host, args.port)


def quickstart(args: argparse.Namespace, overrides: Sequence[str]) -> None:
    """``fsaf quickstart``."""
    from fsaf.cli.quickstart import quickstart as run

    run(Path(args.out), overrides)


def _draw_report(run: Path) -> None:
    """Write a run's report.html. Where that fails a note says so: what it would have shown is there."""
    from rich.console import Console

    from fsaf.reporting.report import write_report

    try:
        with Console(stderr=True).status("drawing the report"):
            path = write_report(run)
        print(f"report: {path}")
    except Exception as error:
        text = printable(f"{type(error).__name__}: {error}")
        print(f"note: report.html could not be made ({text})", file=sys.stderr)


def _in_many(
    function: Any, args: argparse.Namespace, overrides: Sequence[str], max_restarts: int = 0
) -> bool:
    """Whether ``function`` has been run in ``args.devices`` processes, and nothing is left to do."""
    _check_devices(args.devices)
    if max_restarts < 0:
        raise UserError(f"--max-restarts {max_restarts}: must be 0 or more")
    if args.devices == 1:
        return False
    from fsaf.processes.group import launch

    count, args.devices = args.devices, 1
    try:
        launch(function, (args, overrides), count, max_restarts)
    except RuntimeError as error:
        raise SystemExit(f"fsaf {args.verb}: {error}") from error  # status 1
    return True


def _check_devices(devices: int) -> None:
    if devices < 1:
        raise UserError(f"--devices {devices}: must be at least 1")


def _open(
    args: argparse.Namespace, overrides: Sequence[str], device: "torch.device | None" = None
) -> "Detector":
    """The detector of ``args.checkpoint`` with overridden settings of data and post-processing."""
    from fsaf.config import to_dict
    from fsaf.detection.detector import load
    from fsaf.model.convolution import use_winograd
    from fsaf.recipe import build_config

    detector = load(args.checkpoint, device or args.device)
    detector.config = build_config(to_dict(detector.config), overrides, where=args.checkpoint)
    if detector.network.module is not None:
        use_winograd(detector.network.module, detector.config.winograd)
    return detector
