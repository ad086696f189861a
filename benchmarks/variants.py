"""Variants of a recipe, trained with several seeds: what several scripts here share."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from fsaf.config import Config
from fsaf.data.digits import write_digits
from fsaf.recipe import load_recipe
from fsaf.training.trainer import train

Table = dict[str, list[dict[str, Any]]]
"""For each variant a row a seed: AP, AP50, AP75, seconds, and of our own runs more."""


def parse(
    doc: str | None,
    names: Sequence[str],
    out: str,
    add_options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
) -> tuple[argparse.Namespace, list[str]]:
    """Arguments that all such scripts have and those of ``add_options``, and overrides of the recipe."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="digits_lite0", help="file or name of the recipe")
    parser.add_argument("--runs", nargs="+", default=list(names), choices=list(names), help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path(out), help="folder of the runs")
    add_options(parser)
    args, overrides = parser.parse_known_args()
    if args.recipe == "digits_lite0" and not any(o.startswith("--data.root") for o in overrides):
        overrides = [f"--data.root={write_digits(args.out / 'digits')}", *overrides]
    return args, overrides


def run_all(
    args: argparse.Namespace,
    overrides: Sequence[str],
    variants: Mapping[str, Sequence[str]],
    around: Callable[[str], AbstractContextManager[Any]],
    trainers: Mapping[str, Callable[[Config], Any]] | None = None,
) -> Table:
    """Train each variant with each seed, but those that the folder has already.

    around: context of a run. trainers: what trains a variant in place of ``fsaf train``.
    """
    table: Table = {}
    for name in args.runs:
        table[name] = []
        for seed in args.seeds:
            out = args.out / f"{name}-seed{seed}"
            if not (out / "seconds").is_file():
                options = [f"--out={out}", f"--train.seed={seed}", *variants[name], *overrides]
                resume = (out / "checkpoints" / "last.pt").is_file()
                config = load_recipe(args.recipe, [*options, f"--resume={str(resume).lower()}"])
                start = time.perf_counter()
                with around(name):
                    (trainers or {}).get(name, train)(config)
                (out / "seconds").write_text(f"{time.perf_counter() - start:.0f}")
            table[name].append(_result(out) | {"seed": seed})
    result = {
        "command": sys.argv,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "recipe": args.recipe,
        "runs": table,
    }
    (args.out / "results.json").write_text(json.dumps(result, indent=1))
    return table


def _result(out: Path) -> dict[str, Any]:
    metrics = json.loads((out / "evaluation.json").read_text())
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if "loss" in record]
    result = {key: metrics[key] for key in ("AP", "AP50", "AP75")}
    if steps:
        result["skipped_steps"] = sum(step["skipped_steps"] for step in steps)
        result |= {key: steps[-1][key] for key in ("loss_scale", "level_share")}
    return result | {"seconds": int((out / "seconds").read_text())}


def show(table: Table, reference: str, extra: Callable[[dict[str, Any]], str], heading: str) -> None:
    """A line a variant: mean AP and AP50, their spread over seeds, difference from ``reference``."""
    means = {name: statistics.mean(row["AP"] for row in rows) for name, rows in table.items() if rows}
    wide = max(map(len, table))
    print(f"{'run':<{wide}} {'AP':>6} {'spread':>7} {'AP50':>6} {'difference':>11} {'seconds':>8}  {heading}")
    for name, rows in table.items():
        scores = [row["AP"] for row in rows]
        difference = f"{means[name] - means[reference]:+.3f}" if reference in means else "-"
        print(
            f"{name:<{wide}} {means[name]:>6.3f} {max(scores) - min(scores):>7.3f} "
            f"{statistics.mean(row['AP50'] for row in rows):>6.3f} {difference:>11} "
            f"{statistics.mean(row['seconds'] for row in rows):>8.0f}  {extra(rows[-1])}"
        )
