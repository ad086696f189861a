"""Metrics as a table of plain text."""

from typing import Any

from fsaf.scoring.metrics import METRICS
from fsaf.scoring.table import format_table


def test_the_table_is_aligned_plain_text() -> None:
    metrics: dict[str, Any] = dict.fromkeys(METRICS, 0.5)
    metrics["AP_small"] = None
    metrics["per_class"] = {
        "cat": {"AP": 0.25, "AP50": 1.0, "boxes": 12},
        "a rather long name": {"AP": None, "AP50": None, "boxes": 0},
        "赤血球": {"AP": 0.1, "AP50": 0.2, "boxes": 3},
        "\x1b[31mred": {"AP": 0.1, "AP50": 0.2, "boxes": 3},
    }
    text = format_table(metrics)
    lines = text.splitlines()
    assert lines[0].split()[:2] == ["AP", "0.500"]
    assert lines[3].split()[:2] == ["AP_small", "-"]
    assert lines[13].split() == ["class", "AP", "AP50", "boxes"]
    assert lines[15].split()[-3:] == ["-", "-", "0"]
    assert len({len(line) for line in (lines[13], lines[14], lines[15], lines[17])}) == 1
    assert len(lines[16]) == len(lines[13]) - 3  # each of the three letters is two cells wide
    assert "\x1b" not in text
    assert format_table(metrics, classes=1).splitlines()[-1] == "... and 3 more classes"
