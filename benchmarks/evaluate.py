"""COCO's metrics of 5,000 images with 100 detections each, beside pycocotools.

    python benchmarks/evaluate.py [--images 5000] [--detections 100]

Boxes are random, detections are boxes moved a little and boxes of nothing. All twelve figures are compared
before anything is timed; the times are from lists of predictions in memory to the figures.
"""

import contextlib
import io
from typing import Any

import numpy as np
import timing

from fsaf.scoring.metrics import METRICS, coco_metrics

CLASSES = 80


def random_data(images: int, detections: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations in COCO's form (7 boxes an image, one in a hundred a crowd region) and predictions."""
    rng = np.random.default_rng(0)
    truth, found = [], []
    for image in range(1, images + 1):
        side = 8 + 400 * rng.random((7, 2)) ** 3
        boxes = np.concatenate([rng.random((7, 2)) * (640 - side), side], 1)
        labels = rng.integers(1, CLASSES + 1, 7)
        for box, label in zip(boxes, labels, strict=True):
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": box.tolist(),
                    "area": float(box[2] * box[3]),
                    "iscrowd": int(rng.random() < 0.01),
                }
            )
        source = rng.integers(0, 7, detections)
        moved = boxes[source] + rng.normal(0, 0.08, (detections, 4)) * boxes[source][:, [2, 3, 2, 3]]
        moved[:, 2:] = np.abs(moved[:, 2:]) + 1
        guess = np.where(
            rng.random(detections) < 0.7, labels[source], rng.integers(1, CLASSES + 1, detections)
        )
        for box, label, score in zip(moved, guess, rng.random(detections), strict=True):
            found.append(
                {"image_id": image, "category_id": int(label), "bbox": box.tolist(), "score": float(score)}
            )
    return {
        "images": [{"id": i, "width": 640, "height": 640} for i in range(1, images + 1)],
        "annotations": truth,
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, CLASSES + 1)],
    }, found


def pycocotools_metrics(truth: dict[str, Any], found: list[dict[str, Any]]) -> list[float]:
    """COCO's twelve figures by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {**truth, "info": {}}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(entry) for entry in found]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def main() -> None:
    """Compare, then time."""
    parser = timing.arguments(__doc__ or "", repeat=3)
    parser.add_argument("--images", type=int, default=5000, help="images (5000)")
    parser.add_argument("--detections", type=int, default=100, help="detections an image (100)")
    args, device = timing.begin(parser)
    truth, found = random_data(200 if args.quick else args.images, args.detections)
    figures: dict[str, Any] = {"images": len(truth["images"]), "detections": len(found)}
    contenders = {"fsaf": lambda: coco_metrics(truth, found)}
    try:
        theirs = pycocotools_metrics(truth, found)
    except ImportError:
        print("pycocotools is not installed; nothing to compare with")
    else:
        ours = coco_metrics(truth, found)
        apart = max(abs(float(ours[key]) - b) for key, b in zip(METRICS, theirs, strict=True))
        figures["check"] = timing.check("twelve figures", apart, 1e-6)
        contenders["pycocotools"] = lambda: pycocotools_metrics(truth, found)
    times = timing.alternate(contenders, 1 if args.quick else args.repeat, device, warm_up=0)
    figures["seconds"] = timing.compare("evaluation", times, "fsaf", len(truth["images"]))
    timing.finish(args, device, figures)


if __name__ == "__main__":
    main()
