"""ResNet-50 from random weights learns twenty pictures by heart: AP on the pictures that it trains on.

    python benchmarks/overfit.py --data.root COCO [--images 20] [--goal 0.9] [--steps 400]
        [--out runs/overfit] [--key.sub value ...]

COCO: a folder with ``annotations/instances_train.json`` (``--annotations``) and ``images``. Takes the first
pictures by id that have one to five objects, all with sides of at least 16 pixels in the network's size.
Nothing is pretrained or frozen, and pictures are not augmented. Prints AP every ten epochs. Exit status 0: AP
reached the goal; 1: the steps were over before.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import fsaf
from fsaf.errors import UserError
from fsaf.recipe import load_recipe

RECIPE = "fsaf_r50_fpn_1x_coco"
BATCH = 4
OPTIONS = [
    # Batch norm that keeps its initial statistics cannot train random weights.
    "--model.weights=none",
    "--model.frozen_stages=-1",
    "--model.frozen_norm=false",
    "--model.norm=group",
    "--model.channels=128",
    "--model.convs=2",
    "--data.shapes=[[192, 256], [256, 192]]",
    "--data.short_side=192",
    "--data.long_side=256",
    f"--data.batch_size={BATCH}",
    "--data.workers=0",
    "--data.flip=0",
    "--optim.name=adamw",
    "--optim.lr=0.001",
    "--optim.scale_lr=false",
    "--optim.weight_decay=0.0001",
    "--optim.schedule=one_cycle",
    "--optim.warmup_steps=50",
    "--train.ema=0.95",
    "--train.evaluate_every=10",
    "--log.every=10",
]


def choose(
    content: dict[str, Any], count: int, short: int, least: float = 16, most: int = 5
) -> dict[str, Any]:
    """The annotations of the first ``count`` images with 1 to ``most`` objects and no crowd region.

    Sides of objects are at least ``least`` pixels in images with a short side of ``short``.
    """
    of_image: dict[int, list[dict[str, Any]]] = {}
    for item in content["annotations"]:
        of_image.setdefault(item["image_id"], []).append(item)
    images, items = [], []
    for image in sorted(content["images"], key=lambda image: image["id"]):
        found = of_image.get(image["id"], [])
        scale = short / min(image["width"], image["height"])
        clear = all(not item["iscrowd"] and min(item["bbox"][2:]) * scale >= least for item in found)
        if 1 <= len(found) <= most and clear:
            images.append(image)
            items += found
        if len(images) == count:
            return {"images": images, "annotations": items, "categories": content["categories"]}
    raise UserError(f"only {len(images)} of the images will do, not {count}")


class Reached(Exception):
    """AP is at the goal."""


class Goal(fsaf.Callback):
    """Prints AP as it goes, and ends the training at ``goal``."""

    def __init__(self, goal: float) -> None:
        self.goal = goal

    def on_evaluation(self, record: dict[str, Any]) -> None:
        print(f"step {record['step']}: AP {record['AP']:.3f}, AP50 {record['AP50']:.3f}", flush=True)
        if record["AP"] >= self.goal:
            raise Reached


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data.root", dest="root", type=Path, required=True, help="folder of the data")
    parser.add_argument(
        "--annotations", default="annotations/instances_train.json", help="COCO JSON file there"
    )
    parser.add_argument("--images", type=int, default=20, help="number of pictures (20)")
    parser.add_argument("--goal", type=float, default=0.9, help="AP to reach (0.9)")
    parser.add_argument("--steps", type=int, default=400, help="give up after these (400)")
    parser.add_argument("--out", type=Path, default=Path("runs/overfit"), help="run folder")
    args, overrides = parser.parse_known_args()
    source = args.root / args.annotations
    few = args.out / "annotations.json"
    few.parent.mkdir(parents=True, exist_ok=True)
    few.write_text(json.dumps(choose(json.loads(source.read_text("utf-8")), args.images, 192)), "utf-8")
    files = [f"--data.{part}.annotations={few.absolute()}" for part in ("train", "val")]
    files += [f"--data.{part}.images=images" for part in ("train", "val")]
    epochs = -(-args.steps // -(-args.images // BATCH))
    length = [f"--train.epochs={epochs}", f"--train.max_steps={args.steps}", f"--out={args.out / 'run'}"]
    config = load_recipe(RECIPE, [*OPTIONS, f"--data.root={args.root}", *files, *length, *overrides])
    try:
        fsaf.train(config, callbacks=[Goal(args.goal)])
    except Reached:
        print(f"AP is at the goal, {args.goal}")
        return 0
    print(f"AP did not reach the goal, {args.goal}, in {args.steps} steps")
    return 1


if __name__ == "__main__":
    sys.exit(main())
