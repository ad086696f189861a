"""One page about a run, in one file: what was reached, how training went, pictures, settings.

``report.html`` holds its style, curves and pictures itself and runs no script, so it can be sent around.
Every part is made from a file of the run folder; one that is missing is left out, and a sentence says so.
All text from these files is escaped (Jinja's autoescape), and without control characters.
"""

import math
import re
from datetime import datetime
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import fsaf
from fsaf.errors import UserError
from fsaf.results.charts import Series, line_chart, number, share_chart
from fsaf.results.metrics import METRICS
from fsaf.results.run_folder import finite, read_metrics, read_object, read_pictures, read_text

_LEVELS = ("P3", "P4", "P5", "P6", "P7")
# Not for a page: control characters, halves of surrogate pairs (UTF-8 has none), marks that turn text around.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def write_report(run: Path) -> Path:
    """Write ``report.html`` into run folder ``run`` from what is there, and return its path.

    Reads ``evaluation.json``, ``metrics.jsonl``, ``pictures/*.png``, ``export.json``, ``summary.json``
    (seconds of each stage) and ``config.yaml``. Raises UserError if there is no such folder.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such run folder")
    notes: list[str] = []
    evaluation = read_object(run / "evaluation.json", notes)
    summary = read_object(run / "summary.json", notes)
    export = read_object(run / "export.json", notes)
    steps, evaluations = read_metrics(run / "metrics.jsonl", notes)
    settings = read_text(run / "config.yaml", notes)
    pictures, found = read_pictures(run / "pictures", notes)
    stages = [(name, value) for name, each in (summary or {}).items() if (value := finite(each)) is not None]

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "duration": _duration}
    template = resources.files("fsaf.results").joinpath("report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        name=run.resolve().name,
        version=fsaf.__version__,
        written=datetime.now().strftime("%Y-%m-%d %H:%M"),
        recipe=_recipe(settings),
        tiles=_tiles(evaluation, steps, stages),
        metrics=_metrics(evaluation),
        classes=_classes(evaluation),
        charts=_charts(steps, evaluations),
        speed=_speed(steps),
        pictures=pictures,
        pictures_found=found,
        export=_flat(export) if export else [],
        stages=stages,
        settings=settings,
        notes=notes,
    )
    page = _CONTROL.sub("?", page)
    path = run / "report.html"
    temporary = run / ".report.html.tmp"
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


def _recipe(settings: str | None) -> str:
    """The settings that say most, in a line."""
    try:
        config = yaml.safe_load(settings or "")
    except yaml.YAMLError:
        return ""

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
    """Headline figures: name, value, what it means."""
    tiles = []
    for key in ("AP", "AP50", "AR100"):
        if (value := finite((evaluation or {}).get(key))) is not None:
            tiles.append((key, f"{value:.3f}", METRICS[key]))
    if (rate := finite((evaluation or {}).get("images_per_second"))) is not None:
        tiles.append(("Images / s", number(rate), "evaluation: reading, network and post-processing"))
    seconds = dict(stages).get("train") or _training_seconds(steps)
    if seconds:
        tiles.append(("Training", _duration(seconds), f"{int(steps[-1]['step']):,} steps" if steps else ""))
    return tiles


def _training_seconds(steps: list[dict[str, Any]]) -> float:
    before, total = 0.0, 0.0
    for record in steps:
        total += (record["step"] - before) * (finite(record.get("step_seconds")) or 0.0)
        before = record["step"]
    return total


def _metrics(evaluation: dict[str, Any] | None) -> list[list[tuple[str, str, float | None]]]:
    """COCO's twelve figures in two groups, precision and recall: name, meaning, value."""
    if evaluation is None:
        return []
    rows = [(key, meaning, finite(evaluation.get(key))) for key, meaning in METRICS.items()]
    return [rows[:6], rows[6:]]


def _classes(evaluation: dict[str, Any] | None) -> list[tuple[str, float | None, float | None, str]]:
    """Name, AP, AP50 and number of boxes of each class, best first."""
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

    losses = (("total", "loss"), ("classes", "loss_cls"), ("boxes", "loss_box"))
    charts = [
        line_chart(
            "Loss",
            [
                Series(name=name, points=over(steps, "step", key), style=f"s{i}")
                for i, (name, key) in enumerate(losses)
            ],
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
    shares = [
        (record["step"], share)
        for record in steps
        if (share := _share(record.get("level_share"))) is not None
    ]
    charts.append(
        share_chart(
            "Pyramid level that the boxes learn on",
            [step for step, _ in shares],
            [share for _, share in shares],
            _LEVELS,
            [f"l{i}" for i in range(5)],
            "step",
        )
    )
    return [chart for chart in charts if chart]


def _share(value: Any) -> list[float] | None:
    if not isinstance(value, list) or len(value) != len(_LEVELS):
        return None
    numbers = [number for each in value if (number := finite(each)) is not None]
    total = sum(numbers)
    return [each / total for each in numbers] if len(numbers) == len(value) and total > 0 else None


def _speed(steps: list[dict[str, Any]]) -> list[str]:
    """Sentences on how fast training ran."""

    def every(key: str) -> list[float]:
        return [value for record in steps if (value := finite(record.get(key))) is not None]

    said = []
    if rates := every("images_per_second"):
        said.append(f"{number(median(rates))} images/s in training (median)")
    data, step = every("data_seconds"), every("step_seconds")
    if data and sum(step) > 0:
        said.append(f"{min(sum(data) / sum(step), 1):.0%} of the time spent waiting for data")
    if (memory := every("memory_gb")) and max(memory) > 0:
        said.append(f"{max(memory):.1f} GB of device memory at most")
    if recall := every("pos_recall"):
        said.append(f"{recall[-1]:.0f}% of positive locations score their own class highest at the end")
    return said


def _flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (name, text) rows."""
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


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
