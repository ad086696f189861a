"""The FSAF paper's first table on any recipe: anchors alone, anchor-free with levels by size or online, both.

    python benchmarks/ablation.py [--recipe digits_lite0] [--seeds 0 1 2] [--runs ...] [--out FOLDER]
        [--key.sub value ...]
    python benchmarks/ablation.py --recipe bccd_lite0 --data.root PATH --out runs/ablation-bccd

All have the recipe's backbone, initial weights, epochs, pictures and order of them. Prints AP, its spread
over seeds and the share of objects that chose each level at the end; writes ``results.json``. Runs that are
in the folder already are not repeated.
"""

import contextlib

import torch
from variants import parse, run_all, show

RUNS = {
    "anchor-based": ["--model.branches=[anchor_based]"],
    "anchor-free-by-size": ["--model.branches=[anchor_free]", "--objective.level_choice=size"],
    "anchor-free-online": ["--model.branches=[anchor_free]"],
    "both-by-size": ["--model.branches=[anchor_free, anchor_based]", "--objective.level_choice=size"],
    "both-online": ["--model.branches=[anchor_free, anchor_based]"],
}
"""Rows of the paper's table 1."""


def main() -> None:
    args, overrides = parse(__doc__, list(RUNS), "runs/ablation")
    table = run_all(args, overrides, RUNS, lambda _: contextlib.nullcontext())
    print(f"\n{args.recipe}, seeds {args.seeds}, torch {torch.__version__}")
    show(
        table,
        "anchor-free-online",
        lambda row: " ".join(f"{100 * share:3.0f}%" for share in row["level_share"]),
        "P3   P4   P5   P6   P7",
    )


if __name__ == "__main__":
    main()
