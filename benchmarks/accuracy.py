"""FSAF beside torchvision's RetinaNet and FCOS: same backbone, weights, pictures, epochs and augmentation.

    python benchmarks/accuracy.py --recipe bccd_lite0 --data.root PATH --seeds 0 1 2 --out runs/accuracy-bccd
    python benchmarks/accuracy.py [--recipe digits_lite0] [--runs fsaf ...] [--key.sub value ...]

Prints AP and AP50, their means and spread over seeds, and the seconds of a run; writes ``results.json``. Runs
that are in the folder already are not repeated. ``torchvision_peers.py`` says what the peers are.
"""

import contextlib
import functools

import torch
from torchvision_peers import train_peer
from variants import parse, run_all, show

RUNS = {
    "fsaf": ["--model.branches=[anchor_free]"],
    "ab-fsaf": ["--model.branches=[anchor_free, anchor_based]"],
    "ab-fsaf-weighted": [  # docs/lab/branches.md
        "--model.branches=[anchor_free, anchor_based]",
        "--objective.anchor_box_loss=giou",
        "--objective.anchor_free_weight=8",
        "--predict.anchor_weight=0.5",
    ],
    "torchvision-retinanet": [],
    "torchvision-fcos": [],
}
PEERS = {f"torchvision-{kind}": functools.partial(train_peer, kind) for kind in ("retinanet", "fcos")}


def main() -> None:
    args, overrides = parse(__doc__, list(RUNS), "runs/accuracy")
    table = run_all(args, overrides, RUNS, lambda _: contextlib.nullcontext(), PEERS)
    print(f"\n{args.recipe}, seeds {args.seeds}, {' '.join(overrides)}, torch {torch.__version__}")
    show(table, "fsaf", lambda row: "", "")


if __name__ == "__main__":
    main()
