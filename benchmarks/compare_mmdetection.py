"""MMDetection's FSAF and ours on the same weights and images: detections, losses and times side by side.

    python benchmarks/compare_mmdetection.py CHECKPOINT --annotations FILE.json --images FOLDER

CHECKPOINT is one of MMDetection's or of ours. Needs mmdet, which fsaf itself never does; benchmarks/peers.py
says how to install it without a compiler.
"""

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch

import fsaf
from fsaf.checkpoints.any_format import read_checkpoint, write_checkpoint
from fsaf.config import DataConfig
from fsaf.data.readers.coco import read_coco
from fsaf.data.records import Records
from fsaf.data.samples import Images
from fsaf.data.workers import make_loader
from fsaf.errors import UserError
from fsaf.objective.objective import objective


class Theirs(peers.MMDetection):
    """MMDetection's detector on records of a data set."""

    def __init__(self, checkpoint: Path, backbone: str, data: DataConfig, device: str) -> None:
        super().__init__(checkpoint, backbone, device, (data.long_side, data.short_side))
        self.test_pipeline, self.train_pipeline = self.pipeline(boxes=False), self.pipeline(boxes=True)

    def batch(self, records: Records, boxes: bool) -> dict[str, list[Any]]:
        rows = []
        for record in records.images:
            row: dict[str, Any] = {"img_path": str(record.path), "img_id": record.id}
            row |= {"height": record.height, "width": record.width}
            if boxes:
                row["instances"] = [
                    {"bbox": box.tolist(), "bbox_label": int(label), "ignore_flag": int(crowd)}
                    for box, label, crowd in zip(record.boxes, record.labels, record.crowd, strict=True)
                ]
            rows.append((self.train_pipeline if boxes else self.test_pipeline)(row))
        return {key: [row[key] for row in rows] for key in rows[0]}

    def detect(self, records: Records) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes, scores, labels of the one image of ``records``."""
        return self.predict(self.batch(records, boxes=False))[0]


def seconds(calls: list[Callable[[], Any]], repeat: int) -> list[float]:
    """Median time of each call, after one round that does not count; taken in turns, as load varies."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeat + 1):
        for call, own in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            own.append(time.perf_counter() - start)
    return [float(np.median(own[1:])) for own in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=4, help="images with boxes to compare on (4)")
    parser.add_argument("--short-side", type=int, default=800)
    parser.add_argument("--long-side", type=int, default=1333)
    parser.add_argument("--repeat", type=int, default=3, help="timed calls (3)")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if not peers.has_mmdetection():
        sys.exit(peers.MISSING)
    warnings.filterwarnings("ignore")

    checkpoint = read_checkpoint(args.checkpoint)
    backbone = checkpoint.config.model.backbone.split(".")[0]
    data = DataConfig(
        short_side=args.short_side, long_side=args.long_side, pad=32, flip=0, shuffle=False, workers=0
    )
    detector = fsaf.load(args.checkpoint, args.device)
    detector.config.data = data
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mmdetection.pth"
        write_checkpoint(path, checkpoint)
        theirs = Theirs(path, backbone, data, args.device)
    records = read_coco(args.annotations, args.images, detector.classes)
    some = [record for record in records.images if len(record.boxes)][: args.count]
    records = replace(records, images=some)
    print(
        f"mmdet {theirs.version} ({theirs.operators}), fsaf {fsaf.__version__}, torch {torch.__version__}, "
        f"{args.device}, {torch.get_num_threads()} threads of {os.cpu_count()} cores\n"
        f"{backbone}, images resized to {args.short_side} x {args.long_side}\n"
    )

    print(f"{'image':>12} {'mmdet':>6} {'fsaf':>6} {'in both':>8} {'score diff':>11} {'box diff px':>12}")
    lowest = detector.config.predict.score_threshold
    for record in records.images:
        one = replace(records, images=[record])
        expected = theirs.detect(one)
        found = detector.predict(record.path, score_threshold=lowest)
        count, score, box = peers.matched(expected, found)
        print(f"{record.id:>12} {len(expected[1]):>6} {len(found):>6} {count:>8} {score:>11.1e} {box:>12.1e}")

    model, settings = detector.model, detector.config.objective
    pair = replace(records, images=records.images[:2])
    loader, _ = make_loader(Images(pair, data, augment=True), len(pair.images), workers=0, train=True)
    batch = next(iter(loader))
    device = next(model.parameters()).device
    images, boxes = batch.images.to(device), batch.boxes.to(device)

    def our_step() -> dict[str, torch.Tensor]:
        model.train()
        model.zero_grad()
        terms = objective(model(images, boxes.sizes), boxes, settings)
        terms.loss.backward()
        return {
            "loss_cls": terms.loss_cls_l.sum(),
            "loss_box": terms.loss_box_l.sum(),
            "num_pos": terms.statistics.num_pos,
        }

    their_batch = theirs.batch(pair, boxes=True)
    print(f"\nlosses of images {batch.ids}")
    our_terms, their_terms = our_step(), theirs.losses(their_batch)
    for key, value in our_terms.items():
        a, b = float(their_terms[key]), float(value)
        print(f"{key:>12} {a:>12.6g} {b:>12.6g}   relative difference {abs(a - b) / max(abs(a), 1e-9):.1e}")

    one = replace(records, images=records.images[:1])
    rows = (
        (
            "predict, file to boxes",
            lambda: theirs.detect(one),
            lambda: detector.predict(one.images[0].path, score_threshold=lowest),
        ),
        (f"step of {len(pair.images)}, no update", lambda: theirs.losses(their_batch), our_step),
    )
    print(f"\n{'seconds':>24} {'mmdet':>8} {'fsaf':>8} {'ratio':>7}")
    for name, their_call, our_call in rows:
        model.eval()
        a, b = seconds([their_call, our_call], args.repeat)
        print(f"{name:>24} {a:>8.3f} {b:>8.3f} {a / b:>7.2f}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
