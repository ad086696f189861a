"""Metrics as a table of plain text."""

import math
from collections.abc import Mapping
from typing import Any

from fsaf.scoring.metrics import METRICS
from fsaf.text import columns


def format_table(metrics: Mapping[str, Any], classes: int | None = None) -> str:
    """Return COCO's table and the figures of each class as aligned plain text.

    metrics: as returned by ``coco_metrics``, or the content of ``evaluation.json``. classes: show at most
    this many classes. A figure that does not exist is shown as ``-``.
    """
    rows = [(key, _figure(metrics.get(key)), meaning) for key, meaning in METRICS.items()]
    text = columns(rows, "lrl")
    if ranges := metrics.get("intervals"):
        shown = ", ".join(f"{name} {low:.3f} to {high:.3f}" for name, (low, high) in ranges.items())
        text += f"\n\n95% intervals, for other images of the same kind: {shown}"
    of_classes = format_classes(metrics, classes)
    return f"{text}\n\n{of_classes}" if of_classes else text


def format_classes(metrics: Mapping[str, Any], classes: int | None = None) -> str:
    """Return the figures of each class as aligned plain text, empty without any; as ``format_table``."""
    per_class = metrics.get("per_class", {})
    if not per_class:
        return ""
    figures = [
        (name, _figure(row["AP"]), _figure(row["AP50"]), str(row["boxes"])) for name, row in per_class.items()
    ]
    text = columns([("class", "AP", "AP50", "boxes"), *figures[:classes]], "lr")
    more = len(figures) - len(figures[:classes])
    return f"{text}\n... and {more} more classes" if more else text


def _figure(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"
