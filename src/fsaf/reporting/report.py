"""One page about a run, in one file: figures, the course of training, pictures, settings.

``report.html`` contains its style, curves and pictures and runs no script, so it can be passed on. Each part
comes from a file of the run folder; if the file is missing, the part is left out.
"""

import json
import math
from pathlib import Path
from statistics import median
from typing import Any

from markupsafe import Markup

from fsaf.data.records import Records
from fsaf.errors import UserError
from fsaf.reporting.charts import Series, line_chart, number, share_chart
from fsaf.reporting.findings import Findings, OpenSplit, find, open_splits, summarise
from fsaf.reporting.levels import level_advice, shares_by_size
from fsaf.reporting.page import duration, write_page
from fsaf.run_folder.commands import read_commands
from fsaf.run_folder.read import (
    finite,
    parse_settings,
    read_metrics,
    read_object,
    read_picture,
    read_pictures,
    read_text,
)
from fsaf.scoring.analysis import LEVELS, SHOWN
from fsaf.scoring.metrics import METRICS


def write_report(run: Path, path: Path | None = None, validation: Records | None = None) -> Path:
    """Write ``report.html`` into run folder ``run`` (or to ``path``) from the files there; return its path.

    Reads ``evaluation.json``, ``metrics.jsonl``, ``predictions.json`` and the annotations that it refers to,
    ``pictures/*.png``, ``preview.jpg``, ``export.json``, ``summary.json`` (seconds of each stage),
    ``commands.jsonl`` and ``config.yaml``. validation: the split of the evaluation, if it is open already.
    Raises UserError if there is no such folder, or the page cannot be written.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder")
    notes: list[str] = []
    evaluation = read_object(run / "evaluation.json", notes)
    summary = read_object(run / "summary.json", notes)
    export = read_object(run / "export.json", notes)
    steps, evaluations = read_metrics(run / "metrics.jsonl", notes)
    settings = read_text(run / "config.yaml", notes)
    pictures, pictures_found = read_pictures(run / "pictures", notes)
    seen = read_picture(run / "preview.jpg", notes)
    stages = [(name, value) for name, each in (summary or {}).items() if (value := finite(each)) is not None]
    splits = open_splits(evaluation, settings, notes, validation)
    facts, boxes = summarise(splits)
    path = path or run / "report.html"
    write_page(
        path,
        "report.html.j2",
        name=run.resolve().name,
        recipe=recipe_line(settings),
        tiles=_tiles(evaluation, steps, stages),
        metrics=_metrics(evaluation),
        classes=_classes(evaluation),
        findings=_findings(run, splits, notes),
        shown=SHOWN,
        levels=LEVELS,
        splits=[(title, str(split.records.source)) for title, split in splits.items()],
        data_facts=facts,
        data_boxes=boxes,
        charts=_charts(steps, evaluations),
        level_advice=_level_advice(steps, splits.get("training")),
        pos_recall=finite(steps[-1].get("pos_recall")) if steps else None,
        speed=speed_facts(evaluation, steps),
        seen=seen,
        pictures=pictures,
        pictures_found=pictures_found,
        export=_flat(export) if export else [],
        stages=stages,
        commands=read_commands(run, notes),
        settings=settings,
        notes=notes,
    )
    return path


def _findings(run: Path, splits: dict[str, OpenSplit], notes: list[str]) -> Findings | None:
    text = read_text(run / "predictions.json", notes)
    if text is None or "validation" not in splits:
        return None
    try:
        predictions = json.loads(text)
    except (ValueError, RecursionError) as error:
        notes.append(f"predictions.json is not readable: {error}")
        return None
    return find(splits["validation"], predictions, notes)


def recipe_line(settings: str | None) -> str:
    """Return the most important settings on one line."""
    config = parse_settings(settings, [])

    def value(group: str, key: str) -> Any:
        section = config.get(group) if isinstance(config, dict) else None
        return section.get(key) if isinstance(section, dict) else None

    parts = (
        ("{}", value("model", "backbone")),
        ("{} channels", value("model", "channels")),
        ("{} epochs", value("train", "epochs")),
        ("batch of {}", value("data", "batch_size")),
        ("{}", value("optim", "name")),
        ("{}", value("train", "precision")),
    )
    return " · ".join(text.format(each) for text, each in parts if isinstance(each, (str, int, float)))


def _tiles(
    evaluation: dict[str, Any] | None, steps: list[dict[str, Any]], stages: list[tuple[str, float]]
) -> list[tuple[str, str, str]]:
    """Return the headline figures: name, value, meaning."""
    tiles = []
    for key in ("AP", "AP50", "AR100"):
        if (value := finite((evaluation or {}).get(key))) is not None:
            tiles.append((key, f"{value:.3f}", METRICS[key] + _interval(evaluation, key)))
    if (rate := finite((evaluation or {}).get("images_per_second"))) is not None:
        tiles.append(("Images / s", number(rate), "evaluation: reading, network and post-processing"))
    seconds = dict(stages).get("train") or training_seconds(steps)
    if seconds:
        tiles.append(("Training", duration(seconds), f"{int(steps[-1]['step']):,} steps" if steps else ""))
    return tiles


def _interval(evaluation: dict[str, Any] | None, key: str) -> str:
    """Return the 95% interval of a figure, for its meaning; an empty text if the evaluation has none."""
    ranges = (evaluation or {}).get("intervals")
    ends = ranges.get(key) if isinstance(ranges, dict) else None
    if not isinstance(ends, list) or len(ends) != 2 or None in (ends := [finite(end) for end in ends]):
        return ""
    return f"; {ends[0]:.3f} to {ends[1]:.3f} on other images (95%)"


def training_seconds(steps: list[dict[str, Any]]) -> float:
    """Return the time of all steps, without evaluations; 0 if it is not recorded."""
    before, total = 0.0, 0.0
    for record in steps:
        total += (record["step"] - before) * (finite(record.get("step_seconds")) or 0.0)
        before = record["step"]
    return total


def _metrics(evaluation: dict[str, Any] | None) -> list[list[tuple[str, str, float | None]]]:
    """Return COCO's twelve figures in two groups, precision and recall: name, meaning, value."""
    if evaluation is None:
        return []
    boxes = evaluation.get("boxes_by_size")
    boxes = boxes if isinstance(boxes, dict) else {}
    rows = []
    for key, meaning in METRICS.items():
        count = finite(boxes.get(key.partition("_")[2]))
        counted = "" if count is None else f": {count:,.0f} boxes"
        rows.append((key, meaning + counted, finite(evaluation.get(key))))
    return [rows[:6], rows[6:]]


def _classes(evaluation: dict[str, Any] | None) -> list[tuple[str, float | None, float | None, str]]:
    """Return name, AP, AP50 and number of boxes of each class, best first."""
    per_class = (evaluation or {}).get("per_class")
    rows = []
    for name, row in per_class.items() if isinstance(per_class, dict) else ():
        row = row if isinstance(row, dict) else {"AP": row}
        boxes = finite(row.get("boxes"))
        rows.append(
            (
                str(name),
                finite(row.get("AP")),
                finite(row.get("AP50")),
                "-" if boxes is None else f"{boxes:,.0f}",
            )
        )
    return sorted(rows, key=lambda row: -1.0 if row[1] is None else row[1], reverse=True)


def _charts(steps: list[dict[str, Any]], evaluations: list[dict[str, Any]]) -> list[Markup]:
    def over(records: list[dict[str, Any]], x: str, key: str) -> list[tuple[float, float]]:
        return [(record[x], value) for record in records if (value := finite(record.get(key))) is not None]

    evaluated = [record for record in evaluations if finite(record.get("step")) is not None]
    losses = (("total", "loss"), ("classes", "loss_cls"), ("boxes", "loss_box"))
    charts = [
        line_chart(
            "Loss",
            [
                Series(name=name, points=over(steps, "step", key), style=f"s{i}")
                for i, (name, key) in enumerate(losses)
            ]
            + [Series(name="validation", points=over(evaluated, "step", "val_loss"), style="s3")],
            "step",
        ),
        line_chart(
            "Accuracy on the validation split",
            [
                Series(name=key, points=over(evaluations, "epoch", key), style=f"s{i}")
                for i, key in enumerate(("AP", "AP50"))
            ],
            "epoch",
            dots=True,
        ),
        line_chart(
            "Learning rate", [Series(name="rate", points=over(steps, "step", "lr"), style="s0")], "step"
        ),
    ]
    shares = _level_shares(steps)
    charts.append(
        share_chart(
            "Pyramid level that the boxes learn on",
            [step for step, _ in shares],
            [share for _, share in shares],
            LEVELS,
            [f"l{i}" for i in range(5)],
            "step",
        )
    )
    return [chart for chart in charts if chart]


def _level_advice(steps: list[dict[str, Any]], training: OpenSplit | None) -> str:
    if training is None:
        return ""
    shares = [share for _, share in _level_shares(steps)]
    return level_advice(shares, shares_by_size(training.records, training.data))


def _level_shares(steps: list[dict[str, Any]]) -> list[tuple[float, list[float]]]:
    """Return step and share of the boxes on each level, of the records that have them."""
    return [
        (record["step"], share)
        for record in steps
        if (share := _share(record.get("level_share"))) is not None
    ]


def _share(value: Any) -> list[float] | None:
    if not isinstance(value, list) or len(value) != len(LEVELS):
        return None
    numbers = [number for each in value if (number := finite(each)) is not None]
    total = sum(numbers)
    return [each / total for each in numbers] if len(numbers) == len(value) and total > 0 else None


def speed_facts(evaluation: dict[str, Any] | None, steps: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the speed of training and evaluation: name and text."""

    def every(key: str) -> list[float]:
        return [value for record in steps if (value := finite(record.get(key))) is not None]

    facts = []
    if rates := every("images_per_second"):
        facts.append(("training, median", f"{number(median(rates))} images/s"))
    if seconds := training_seconds(steps):
        facts.append(("training, all steps", duration(seconds)))
    data, step = every("data_seconds"), every("step_seconds")
    if data and sum(step) > 0:
        facts.append(("training, waiting for data", f"{min(sum(data) / sum(step), 1):.0%} of the time"))
    if (memory := every("memory_gb")) and max(memory) > 0:
        facts.append(("memory at most", f"{max(memory):.1f} GB"))
    if (rate := finite((evaluation or {}).get("images_per_second"))) is not None:
        facts.append(("evaluation, from file to boxes", f"{number(rate)} images/s"))
    return facts


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested settings to rows of name and text."""
    rows: list[tuple[str, str]] = []
    for key, each in value.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(each, dict):
            rows += _flat(each, f"{prefix}{key}: ")
        elif isinstance(each, bool):
            rows.append((name, "yes" if each else "no"))
        elif isinstance(each, float):
            rows.append((name, number(each) if math.isfinite(each) else str(each)))
        elif isinstance(each, list):
            text = ", ".join(map(str, each[:20])) + (f", ... ({len(each)})" if len(each) > 20 else "")
            rows.append((name, text))
        else:
            rows.append((name, "-" if each is None else str(each)))
    return rows
