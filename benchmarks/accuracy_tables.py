"""Tables of docs/lab/accuracy.md and figures of README.md, from the results of ``accuracy.py``."""

import json
import re
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fsaf.text import counted

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "lab" / "accuracy.md"
PHASES = {"choose": "validation", "report": "test"}
"""Phases, and the part of the data that each is scored on."""
END = "<!-- end -->"

Result = dict[str, Any]
"""One run, as ``accuracy.py`` writes it."""


def read_results(folder: Path) -> list[Result]:
    """All results below a folder."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.rglob("*.json"))]


def table(results: Iterable[Result]) -> str:
    """A Markdown table of the runs on one data set in one phase: a line a run, means over its seeds."""
    runs: dict[str, list[Result]] = {}
    for one in results:
        runs.setdefault(one["run"], []).append(one)
    first = next(iter(runs.values()))[0]
    classes = list(first["per_class"]) if len(first["per_class"]) <= 5 else []
    heads = ["run", "AP, by seed", "mean", "spread", "AP50, mean", *classes, "steps"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, rows in runs.items():
        scores = [row["AP"] for row in rows]
        cells = [
            f"`{name}`",
            ", ".join(f"{row['AP']:.3f} ({row['seed']})" for row in rows),
            f"{statistics.mean(scores):.3f}",
            f"{max(scores) - min(scores):.3f}" if len(scores) > 1 else "",
            f"{statistics.mean(row['AP50'] for row in rows):.3f}",
            *(f"{_mean(row['per_class'].get(name) for row in rows)}" for name in classes),
            str(rows[0]["steps"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.3f}" if known else ""


def origin(results: list[Result]) -> str:
    """A sentence on where the figures are from."""
    days = sorted({one["date"][:10] for one in results})
    machines = sorted({f"{one['machine']}, {counted(one['threads'], 'thread')}" for one in results})
    torch = sorted({one["versions"]["torch"] for one in results})
    period = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    where = results[0]
    return (
        f"`python benchmarks/accuracy.py benchmarks/protocols/{where['protocol']}.yaml {where['phase']}`, "
        f"{period}, torch {' and '.join(torch)}, {'; '.join(machines)}. Means are over seeds, *spread* is "
        f"the highest less the lowest; scored on the {PHASES[where['phase']]} part."
    )


def fill(page: str, results: Iterable[Result]) -> str:
    """A page with the tables of results between their markers; those that it lacks are added at its end."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for one in sorted(results, key=lambda one: (one["order"], one["seed"])):
        groups.setdefault((one["protocol"], one["data"], one["phase"]), []).append(one)
    for (protocol, data, phase), rows in sorted(groups.items()):
        start = f"<!-- accuracy {protocol} {data} {phase} -->"
        text = f"{start}\n{origin(rows)}\n\n{table(rows)}\n{END}"
        pattern = re.compile(re.escape(start) + ".*?" + re.escape(END), re.S)
        if pattern.search(page):
            page = pattern.sub(lambda found, text=text: text, page)
        else:
            page = f"{page.rstrip()}\n\n## {protocol}: {data}, {phase}\n\n{text}\n"
    return page


def mean_of(results: Iterable[Result], key: str) -> float:
    """The mean of ``AP`` or ``AP50`` over seeds."""
    return statistics.mean(one[key] for one in results)
