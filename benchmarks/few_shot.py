"""A recipe trained on ten of its pictures, from ImageNet's weights and from a checkpoint.

    python benchmarks/few_shot.py --recipe bccd_lite0 --data.root PATH --init CHECKPOINT [--images 10]
        [--seeds 0 1 2] [--out runs/few-shot] [--key.sub value ...]

The pictures are drawn by seed, anew until every class is on one, and are the same for all runs of a seed;
the annotations must be a COCO JSON file. CHECKPOINT may be of other classes, as the quickstart's is; what
fits is taken over. Prints AP and AP50 on the whole validation split, means and spread over seeds; writes
``results.json``. Runs that are in the folder already are not repeated.
"""

import argparse
import contextlib
import functools
import json
import random
from dataclasses import replace
from pathlib import Path

import torch
from variants import parse, run_all, show

from fsaf.config import Config
from fsaf.errors import UserError
from fsaf.training.trainer import train

EPOCHS = 60
"""Of ten pictures, as many steps as five epochs of two hundred in batches of eight."""


def draw(annotations: Path, count: int, seed: int, out: Path) -> Path:
    """Write the annotations of ``count`` images, every class among them; returns the file."""
    content = json.loads(annotations.read_text(encoding="utf-8"))
    wanted = {category["id"] for category in content["categories"]}
    wanted &= {item["category_id"] for item in content["annotations"]}
    rng = random.Random(seed)
    for _ in range(10_000):
        images = rng.sample(content["images"], min(count, len(content["images"])))
        ids = {image["id"] for image in images}
        items = [item for item in content["annotations"] if item["image_id"] in ids]
        if {item["category_id"] for item in items} == wanted:
            break
    else:
        raise UserError(
            f"{annotations}: no {count} images have all {len(wanted)} classes; give more --images"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content | {"images": images, "annotations": items}), encoding="utf-8")
    return out


def train_on_few(count: int, folder: Path, config: Config) -> None:
    """``fsaf train`` on ``count`` of the pictures."""
    split = config.data.train
    if not split.annotations:
        raise UserError("data.train.annotations: give the COCO JSON file to draw the pictures from")
    seed = config.train.seed
    source = Path(config.data.root or ".") / split.annotations
    few = draw(source, count, seed, folder / f"images-seed{seed}.json")
    train(replace(config, data=replace(config.data, train=replace(split, annotations=str(few.absolute())))))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, default=10, help="how many pictures to train on (10)")
    parser.add_argument("--init", help="checkpoint to start from as well")


def main() -> None:
    short = [f"--train.epochs={EPOCHS}", f"--train.evaluate_every={EPOCHS}"]
    runs = {"from-imagenet": short, "from-checkpoint": short}
    args, overrides = parse(__doc__, list(runs), "runs/few-shot", add_options)
    if args.init:
        runs["from-checkpoint"] = [*short, f"--init={args.init}"]
    elif "from-checkpoint" in args.runs:
        args.runs.remove("from-checkpoint")
    trainer = functools.partial(train_on_few, args.images, args.out)
    table = run_all(args, overrides, runs, lambda _: contextlib.nullcontext(), dict.fromkeys(runs, trainer))
    print(f"\n{args.recipe}, {args.images} images, seeds {args.seeds}, torch {torch.__version__}")
    show(table, "from-imagenet", lambda row: "", "")


if __name__ == "__main__":
    main()
