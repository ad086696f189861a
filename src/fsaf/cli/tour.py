"""The stages of ``fsaf quickstart``: pictures, training, evaluation, detections, ONNX, report."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from fsaf.data.digits import write_digits
from fsaf.data.readers.splits import open_split
from fsaf.data.samples import read_record
from fsaf.detection.detector import load
from fsaf.detection.draw import contact_sheet, draw_result
from fsaf.exporting.export import export_detector
from fsaf.files import whole, write_text
from fsaf.recipe import load_recipe
from fsaf.reporting.report import write_report
from fsaf.scoring.evaluate import evaluate
from fsaf.scoring.results import write_evaluation
from fsaf.scoring.table import format_table
from fsaf.text import columns, printable, printable_lines
from fsaf.training.trainer import train

RECIPE = "digits_lite0"
PICTURES = 12


class Stages:
    """Print the stages as they start, and measure the seconds that each takes."""

    def __init__(self, console: Console) -> None:
        self.console, self.seconds = console, dict[str, float]()

    @contextmanager
    def __call__(self, name: str, what: str) -> Iterator[None]:
        self.console.print(f"\n[bold]{name}[/bold]: {escape(printable(what))}", highlight=False)
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def tour(out: Path, overrides: Sequence[str], command: str) -> None:
    """Run every stage into folder ``out``; a second run continues where the first stopped.

    overrides: ``--key.sub=value`` words for the recipe ``digits_lite0``. command: for the run's record.
    """
    console = Console(soft_wrap=True)
    stage = Stages(console)
    data = out / "digits"
    model = out / "model.onnx"

    with stage("data", f"handwritten digits on photographs, as JPEG and COCO JSON in {data}"):
        write_digits(data)
    config = load_recipe(RECIPE, [f"--out={out}", f"--data.root={data}", "--resume=auto", *overrides])
    with stage("train", f"recipe {RECIPE}"):
        train(config, console, command=command)
    best = out / "checkpoints" / ("best.pt" if config.train.evaluate_every else "last.pt")
    detector = load(best, config.device)
    records = open_split(config.data, "val", detector.classes)
    with stage("evaluate", f"{len(records.images)} pictures never trained on"):
        metrics, predictions = evaluate(detector, records, config.data, console)
        write_evaluation(out, metrics, predictions, config.data, detector.classes)
        console.print(format_table(metrics), highlight=False, markup=False)
    shown = records.images[:PICTURES]
    with stage("predict", f"{len(shown)} of them, drawn into {out / 'pictures'}"):
        drawn = []
        for record in shown:
            image = read_record(record, records, config.data)
            result = detector.predict(image, score_threshold=0.3)
            picture = draw_result(image, result.boxes, result.labels, result.scores, result.names)
            with whole(out / "pictures" / f"{record.path.stem}.png") as draft:
                picture.save(draft, "PNG")
            drawn.append(picture)
        with whole(out / "detections.png") as draft:
            contact_sheet(drawn[:6], 3).save(draft, "PNG")
    with stage("export", f"{model}, checked against PyTorch"):
        check = export_detector(detector, model, [record.path for record in shown])
        console.print(printable_lines(check.summary()), highlight=False, markup=False)
    summary: dict[str, Any] = {name: round(seconds, 1) for name, seconds in stage.seconds.items()}
    write_text(out / "summary.json", json.dumps(summary, indent=1))
    report = write_report(out)

    console.print("\n[bold]done[/bold]")
    rows = [
        ("AP", f"{metrics['AP']:.3f}"),
        ("AP50", f"{metrics['AP50']:.3f}"),
        ("images/s", f"{metrics['images_per_second']:.1f} (reading, network, post-processing)"),
        ("seconds", ", ".join(f"{name} {seconds:.0f}" for name, seconds in stage.seconds.items())),
        ("report", str(report)),
        ("pictures", str(out / "pictures")),
        ("checkpoint", str(best)),
        ("ONNX", str(model)),
    ]
    console.print(columns(rows, "l"), highlight=False, markup=False)
    console.print(
        "\nTry next:\n"
        f"  fsaf predict {printable(best)} YOUR_PHOTOS/ --out predictions\n"
        f"  fsaf predict {printable(model)} {printable(data / 'images' / 'val')} --format json\n"
        "  fsaf train lite0 --data.root YOUR_DATA --out runs/mine        (COCO, Pascal VOC or YOLO)",
        highlight=False,
        markup=False,
    )
