"""Several runs side by side on one page: figures, curves, differences of their configs, speed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fsaf.data.records import ground_truth
from fsaf.errors import UserError
from fsaf.keys import flatten
from fsaf.reporting.charts import Series, line_chart
from fsaf.reporting.findings import open_splits
from fsaf.reporting.page import write_page
from fsaf.reporting.report import recipe_line, speed_facts
from fsaf.run_folder.read import finite, parse_settings, read_metrics, read_object, read_text
from fsaf.scoring.confidence import difference
from fsaf.scoring.matching import tabulate
from fsaf.scoring.metrics import METRICS, coco_metrics

MOST = 8
"""Number of runs that a page has colours for."""
_NOT_COMPARED = ("out", "resume")


@dataclass(kw_only=True)
class RunRecord:
    """Content of a run folder, for a comparison."""

    name: str
    evaluation: dict[str, Any]
    steps: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    settings: str | None
    config: dict[str, str]
    """Dotted keys and their values as text."""


def write_comparison(runs: Sequence[Path], path: Path) -> Path:
    """Write a page that compares run folders to ``path``, and return it.

    Raises UserError for too many folders, for one that is absent or given twice, and if the page cannot be
    written.
    """
    if len(runs) > MOST:
        raise UserError(f"{len(runs)} runs; at most {MOST} can be told apart on one page")
    seen: set[Path] = set()
    for run in runs:
        if not run.is_dir():
            raise UserError(f"{run}: no such run folder")
        if run.resolve() in seen:
            raise UserError(f"{run}: given twice")
        seen.add(run.resolve())
    notes: list[str] = []
    records = [_read(run, name, notes) for run, name in zip(runs, names_of(runs), strict=True)]
    if any(len(set(each)) > 1 for each in _evaluated_on(records)):
        notes.insert(0, "These runs were not evaluated on the same images, so their figures do not compare.")
    write_page(
        path,
        "compare.html.j2",
        runs=[
            (record.name, f"s{i}", str(run.resolve()), recipe_line(record.settings))
            for i, (run, record) in enumerate(zip(runs, records, strict=True))
        ],
        metrics=_figures(records),
        chance=_chance(runs, records, notes),
        classes=_classes(records),
        charts=_charts(records),
        differences=_differences(records),
        speed=_speed(records),
        notes=notes,
    )
    return path


def names_of(runs: Sequence[Path]) -> list[str]:
    """Return the names of folders, with as many folders above as it takes to tell them apart."""
    parts = [run.resolve().parts[1:] for run in runs]
    for depth in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            break
    return names


def _read(run: Path, name: str, notes: list[str]) -> RunRecord:
    mine: list[str] = []
    steps, evaluations = read_metrics(run / "metrics.jsonl", mine)
    evaluation = read_object(run / "evaluation.json", mine) or {}
    settings = read_text(run / "config.yaml", mine)
    values = parse_settings(settings, mine)
    keys = flatten(values) if isinstance(values, dict) else {}
    config = {key: "null" if value is None else str(value) for key, value in keys.items()}
    notes += [f"{name}: {note}" for note in mine]
    return RunRecord(
        name=name,
        evaluation=evaluation,
        steps=steps,
        evaluations=evaluations,
        settings=settings,
        config=config,
    )


def _evaluated_on(records: Sequence[RunRecord]) -> tuple[list[str], list[str]]:
    """Return the numbers of images and the places of the splits that the runs were evaluated on, if known."""
    images = [str(record.evaluation["images"]) for record in records if "images" in record.evaluation]
    data = [record.evaluation.get("data") for record in records]
    places = [(each.get("root"), each.get("val")) for each in data if isinstance(each, dict)]
    return images, [str((root and Path(str(root)).resolve(), val)) for root, val in places]


FigureRow = tuple[str, str, list[tuple[str, bool]]]
"""Name, meaning, and for each run the figure as text and whether it is the best."""


ChanceRow = tuple[str, str, str, bool]
"""Name of a run, its AP minus the first one's, the 95% interval of that, and whether it leaves out 0."""


def _figures(records: Sequence[RunRecord]) -> list[FigureRow]:
    return [
        (key, meaning, _mark([record.evaluation.get(key) for record in records]))
        for key, meaning in METRICS.items()
    ]


def _chance(runs: Sequence[Path], records: Sequence[RunRecord], notes: list[str]) -> list[ChanceRow]:
    """Compare the AP of each run with the first one's, on draws of the same images.

    Returns nothing if predictions are missing or do not fit; notes: gets a sentence then.
    """
    found = [_read_predictions(run / "predictions.json") for run in runs]
    if any(each is None for each in found):
        return []
    split = open_splits(records[0].evaluation, None, notes).get("validation")
    if split is None:
        return []
    try:
        tables = [tabulate(split.records, each or []) for each in found]
    except UserError as error:
        notes.append(f"AP is not compared image by image: {error}")
        return []
    truth = ground_truth(split.records)
    scored = [(table, coco_metrics(truth, each or [])) for table, each in zip(tables, found, strict=True)]
    rows = []
    for record, each in zip(records[1:], scored[1:], strict=True):
        change = difference(split.records, scored[0], each)
        if change is not None:
            low, high = change.interval
            rows.append((record.name, f"{change.ap:+.3f}", f"{low:+.3f} to {high:+.3f}", change.is_clear))
    return rows


def _read_predictions(path: Path) -> list[dict[str, Any]] | None:
    """Return the predictions in a file; None if there are none or they are not readable."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(each, dict) for each in found) else None


def _classes(records: Sequence[RunRecord]) -> list[FigureRow]:
    tables = [_table(record) for record in records]
    names = dict.fromkeys(name for table in tables for name in table)
    return [(name, "", _mark([table.get(name) for table in tables])) for name in names]


def _table(record: RunRecord) -> dict[str, Any]:
    """Return AP by class name."""
    per_class = record.evaluation.get("per_class")
    rows = per_class.items() if isinstance(per_class, dict) else ()
    return {str(name): row.get("AP") if isinstance(row, dict) else row for name, row in rows}


def _mark(values: Sequence[Any]) -> list[tuple[str, bool]]:
    """Format figures and mark the highest. Equal ones are all marked, unless all are equal."""
    texts = ["-" if (value := finite(each)) is None else f"{value:.3f}" for each in values]
    figures = [text for text in texts if text != "-"]
    best = max(figures, key=float, default="")
    marked = len(set(figures)) > 1
    return [(text, marked and text == best) for text in texts]


def _charts(records: Sequence[RunRecord]) -> list[Markup]:
    def lines(which: str, x: str, key: str) -> list[Series]:
        return [
            Series(
                name=record.name,
                points=[
                    (row[x], value)
                    for row in getattr(record, which)
                    if (value := finite(row.get(key))) is not None
                ],
                style=f"s{i}",
            )
            for i, record in enumerate(records)
        ]

    charts = [
        line_chart("Loss", lines("steps", "step", "loss"), "step"),
        line_chart("AP on the validation split", lines("evaluations", "epoch", "AP"), "epoch", dots=True),
    ]
    return [chart for chart in charts if chart]


def _differences(records: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Return the keys whose values differ between configs, with the value of each run."""
    configs = [record.config for record in records]
    keys = dict.fromkeys(key for config in configs for key in config if key not in _NOT_COMPARED)
    rows = [(key, [config.get(key, "-") for config in configs]) for key in keys]
    return [(key, texts) for key, texts in rows if len(set(texts)) > 1]


def _speed(records: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    facts = [dict(speed_facts(record.evaluation, record.steps)) for record in records]
    names = dict.fromkeys(name for fact in facts for name in fact)
    return [(name, [fact.get(name, "-") for fact in facts]) for name in names]
