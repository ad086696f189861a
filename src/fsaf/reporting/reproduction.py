"""A training of a published recipe beside the figures that were published for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fsaf.checkpoints.published import Figure, figures_of, is_val2017
from fsaf.config import to_dict
from fsaf.errors import UserError
from fsaf.keys import flatten
from fsaf.recipe import load_recipe
from fsaf.reporting.page import duration, write_page
from fsaf.reporting.report import training_seconds
from fsaf.run_folder.commands import read_commands
from fsaf.run_folder.read import finite, parse_settings, read_metrics, read_object, read_text

_OF_THE_MACHINE = ("out", "resume", "device", "data.root", "data.workers", "log.", "train.save", "train.keep")
"""Beginnings of keys that do not change what is trained."""


class Row(NamedTuple):
    """A published figure beside the one that was reached: texts."""

    source: str
    published: str
    reached: str
    difference: str
    interval: str

    @property
    def line(self) -> str:
        """Return it as one line."""
        between = f", 95% interval {self.interval}" if self.interval else ""
        return f"AP {self.reached}, published {self.published} ({self.source}): {self.difference}{between}"


def compare(figures: Sequence[Figure], evaluation: Mapping[str, Any]) -> list[Row]:
    """Return a row for each published figure.

    evaluation: metrics, with the bootstrap intervals of ``fsaf.scoring.confidence``.
    """
    reached = finite(evaluation.get("AP"))
    low, high = (evaluation.get("intervals") or {}).get("AP", (None, None))
    rows = []
    for figure in figures:
        known = reached is not None
        between = low is not None and high is not None
        rows.append(
            Row(
                source=figure.source,
                published=f"{figure.ap:.3f}",
                reached=f"{reached:.3f}" if known else "-",
                difference=f"{reached - figure.ap:+.3f}" if reached is not None else "-",
                interval=f"{low - figure.ap:+.3f} to {high - figure.ap:+.3f}" if between else "",
            )
        )
    return rows


def write_reproduction(run: Path, recipe: str) -> tuple[Path, list[str]]:
    """Write ``reproduction.html`` into a run folder; return its path, and the same in a few lines.

    recipe: the name of the published recipe. Raises UserError if nothing was published for it, the run was
    not evaluated, or the page cannot be written.
    """
    figures, notes = check_recipe(recipe), list[str]()
    evaluation = read_object(run / "evaluation.json", notes)
    if evaluation is None:
        raise UserError(f"{run}: has no evaluation.json to compare; evaluate it with: fsaf evaluate {run}")
    settings = parse_settings(read_text(run / "config.yaml", notes), notes)
    changed = changes(recipe, settings if isinstance(settings, dict) else {})
    classes = evaluation.get("classes") or {}
    official = is_val2017(evaluation.get("images"), classes.get("names", ()))
    rows = compare(figures, evaluation)
    warnings = []
    if not official:
        warnings.append(
            f"The data are not COCO val2017, but {evaluation.get('images')} images with "
            f"{len(classes.get('names', ()))} classes: the figures do not compare."
        )
    if changed:
        warnings.append("Settings differ from the recipe, so this is another training: " + "; ".join(changed))
    steps, _ = read_metrics(run / "metrics.jsonl", notes)
    path = run / "reproduction.html"
    write_page(
        path,
        "reproduction.html.j2",
        recipe=recipe,
        warnings=warnings,
        rows=rows,
        seconds=duration(training_seconds(steps)),
        steps=int(steps[-1]["step"]) if steps else 0,
        commands=read_commands(run, notes),
        notes=notes,
    )
    return path, [*(f"note: {each}" for each in warnings), *(row.line for row in rows)]


def check_recipe(recipe: str) -> list[Figure]:
    """Return the figures published for a recipe. Raises UserError if there are none."""
    figures = figures_of(recipe)
    if not figures:
        raise UserError(
            f"{recipe}: no figure was published for this recipe; `fsaf models` lists recipes that have one"
        )
    return figures


def changes(recipe: str, settings: Mapping[str, Any]) -> list[str]:
    """Return each setting of a run that its recipe has otherwise, as ``key value (recipe: value)``."""
    own, usual = flatten(dict(settings)), flatten(to_dict(load_recipe(recipe)))
    return [
        f"{key} {own[key]} (recipe: {value})"
        for key, value in usual.items()
        if key in own and _plain(own[key]) != _plain(value) and not key.startswith(_OF_THE_MACHINE)
    ]


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
