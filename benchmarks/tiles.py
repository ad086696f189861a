"""What tiles cost in accuracy: pictures put together to one large one, seen in tiles and one by one.

    python benchmarks/tiles.py CHECKPOINT --data.root BCCD --tile 480

The tiles end anywhere in the pictures, so they cut objects. AP is pycocotools', without its limit of 100
detections a picture. Suppression alone: each tile is predicted as a picture of its own, and torchvision's
``batched_nms`` runs over all of them.
"""

import argparse
import contextlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchvision.ops import batched_nms

import fsaf
from fsaf.config import PredictConfig
from fsaf.data.readers.splits import open_split
from fsaf.data.records import ImageRecord
from fsaf.data.transforms import read_image
from fsaf.detection.detector import Detector, Result
from fsaf.detection.views import plan_tiles
from fsaf.scoring.results import to_coco_results


def put_together(records: list[ImageRecord], columns: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """One picture (3, H, W) of pictures of one size, row by row, and the left top corner (x, y) of each."""
    images = [read_image(record.path) for record in records]
    _, height, width = images[0].shape
    corners = [(i % columns * width, i // columns * height) for i in range(len(images))]
    whole = torch.zeros(3, -(-len(images) // columns) * height, columns * width, dtype=torch.uint8)
    for image, (x, y) in zip(images, corners, strict=True):
        whole[:, y : y + height, x : x + width] = image
    return whole, corners


def average_precision(
    records: list[ImageRecord], corners: list[tuple[int, int]], found: list[dict], ids: list[int]
) -> tuple[float, float]:
    """AP and AP50 of detections in the picture put together."""
    truth = COCO()
    boxes = [
        (box + np.array(corner * 2), label, crowd)
        for record, corner in zip(records, corners, strict=True)
        for box, label, crowd in zip(record.boxes, record.labels, record.crowd, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = {
            "images": [{"id": 1}],
            "categories": [{"id": id_} for id_ in ids],
            "annotations": [
                {
                    "id": number,
                    "image_id": 1,
                    "category_id": ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(crowd),
                }
                for number, ((x1, y1, x2, y2), label, crowd) in enumerate(boxes, start=1)
            ],
        }
        truth.createIndex()
        scored = COCOeval(truth, truth.loadRes(found), "bbox")
        scored.params.maxDets = [1, 10, 100_000]
        scored.evaluate()
        scored.accumulate()
    precision = scored.eval["precision"][:, :, :, 0, -1]
    return float(precision.mean()), float(precision[0].mean())


def predict(detector: Detector, picture: Any, **settings: Any) -> Result:
    """Predict with the threshold that evaluation uses."""
    return detector.predict(picture, score_threshold=detector.config.predict.score_threshold, **settings)


def moved(detector: Detector, result: Result, x: int, y: int) -> list[dict]:
    """COCO results of a part of the picture at (x, y)."""
    boxes = result.boxes + np.array([x, y, x, y])
    return to_coco_results(1, boxes, result.scores, result.labels, detector.classes.ids)


def by_suppression_alone(detector: Detector, whole: Tensor, settings: PredictConfig) -> list[dict]:
    found = []
    for y, x, height, width in plan_tiles((whole.shape[1], whole.shape[2]), settings):
        found += moved(detector, predict(detector, whole[:, y : y + height, x : x + width]), x, y)
    boxes = torch.tensor([entry["bbox"] for entry in found])
    boxes[:, 2:] += boxes[:, :2]
    scores = torch.tensor([entry["score"] for entry in found])
    labels = torch.tensor([entry["category_id"] for entry in found])
    return [found[i] for i in batched_nms(boxes, scores, labels, settings.nms_iou)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--data.root", dest="root", required=True, help="its val split is used")
    parser.add_argument("--tile", type=int, required=True, help="best such that objects look as in training")
    parser.add_argument("--overlap", type=float, default=0.2)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    detector = fsaf.load(args.checkpoint, args.device)
    split = open_split(replace(detector.config.data, root=args.root), "val", detector.classes)
    size = (split.images[0].height, split.images[0].width)
    records = [record for record in split.images if (record.height, record.width) == size][: args.images]
    whole, corners = put_together(records, args.columns)
    settings = replace(detector.config.predict, tile=args.tile, tile_overlap=args.overlap)
    tiles = len(plan_tiles((whole.shape[1], whole.shape[2]), settings))
    print(f"{len(records)} pictures, together {whole.shape[2]} x {whole.shape[1]}, in {tiles} tiles")

    found = {
        "one by one": [
            entry
            for record, corner in zip(records, corners, strict=True)
            for entry in moved(detector, predict(detector, record.path), *corner)
        ],
        "tiles": moved(detector, predict(detector, whole, tile=args.tile, tile_overlap=args.overlap), 0, 0),
        "tiles, suppression alone": by_suppression_alone(detector, whole, settings),
        "as a whole": moved(detector, predict(detector, whole, max_detections=len(records) * 100), 0, 0),
    }
    print(f"{'':<26}{'AP':>6}{'AP50':>8}{'detections':>12}")
    for name, entries in found.items():
        ap, ap50 = average_precision(records, corners, entries, list(detector.classes.ids))
        print(f"{name:<26}{ap:6.3f}{ap50:8.3f}{len(entries):12}")


if __name__ == "__main__":
    main()
