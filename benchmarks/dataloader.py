"""Images a second and core from JPEG files to batches, beside MMDetection's pipeline.

    python benchmarks/dataloader.py [--annotations FILE.json --images FOLDER] [--count 128]

The recipe of COCO: decode, resize to 800 x 1333, flip half of the images, batch 16. Without data, JPEG files
of 480 x 640 pixels are made by rule. One process, one thread: what a worker does. Two tables:

- files to batch: one padded uint8 batch. MMDetection's workers hand over a list of images, which its
  preprocessor later pads and stacks (mmengine's ``stack_batch``); it is shown without and with that;
- files to network: until there is one padded, normalised float32 batch. Ours normalises on the device, in the
  network's first lines; here both do it on the CPU.

Pixels are compared first: they must be equal within one of 255.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import peers
import timing
import torch
from PIL import Image

from fsaf.config import DataConfig
from fsaf.data.readers.coco import read_coco
from fsaf.data.records import Records
from fsaf.data.sampler import Draw
from fsaf.data.samples import Collate, Images
from fsaf.model.detector import FSAF
from fsaf.recipe import load_recipe


def write_pictures(folder: Path, count: int) -> tuple[Path, Path]:
    """``count`` JPEG files as detailed as photographs, 7 boxes each; returns annotation file and folder."""
    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        height, width = (480, 640) if number % 4 else (640, 480)
        pixels = np.zeros((height, width, 3), np.float32)
        for cell, weight in ((160, 1.0), (40, 0.5), (10, 0.25), (3, 0.15)):  # detail falls with its size
            coarse = rng.normal(0, 60 * weight, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
            pixels += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        name = f"{number:06d}.jpg"
        Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8)).save(folder / name, quality=90)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for _ in range(7):
            w, h = (8 + rng.random(2) * (np.array([width, height]) / 2 - 8)).tolist()
            x, y = rng.random() * (width - w), rng.random() * (height - h)
            label = int(rng.integers(1, 81))
            boxes.append(
                {"id": len(boxes) + 1, "image_id": number, "category_id": label, "bbox": [x, y, w, h]}
            )
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, 81)]
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))
    return path, folder


def rows_of(records: Records) -> list[dict[str, Any]]:
    """The records as MMDetection's data set hands them to its pipeline."""
    return [
        {
            "img_path": str(record.path),
            "img_id": record.id,
            "height": record.height,
            "width": record.width,
            "instances": [
                {"bbox": box.tolist(), "bbox_label": int(label), "ignore_flag": int(crowd)}
                for box, label, crowd in zip(record.boxes, record.labels, record.crowd, strict=True)
            ],
        }
        for record in records.images
    ]


def ours(records: Records, data: DataConfig, batch: int) -> list[Any]:
    """All images in batches of one shape each, as a worker makes them."""
    images, collate = Images(records, data, augment=True), Collate(32, data.max_boxes)
    shapes = sorted({shape for shape in images.shapes if shape})
    found = []
    for shape in shapes or [None]:
        members = [i for i, own in enumerate(images.shapes) if own == shape]
        for start in range(0, len(members), batch):
            found.append(collate([images[Draw(i, 0, shape)] for i in members[start : start + batch]]))
    return found


def main() -> None:
    """Compare, then time."""
    parser = timing.arguments(__doc__ or "", repeat=5, threads=1, device="cpu")
    parser.add_argument("--annotations", type=Path, help="COCO JSON file (pictures made by rule)")
    parser.add_argument("--images", type=Path, help="its folder of images")
    parser.add_argument("--count", type=int, default=128, help="images (128)")
    parser.add_argument("--batch", type=int, default=16, help="images a batch (16)")
    args, device = timing.begin(parser)
    cv2.setNumThreads(0)
    config = load_recipe("fsaf_r50_fpn_1x_coco")
    data = config.data
    with tempfile.TemporaryDirectory() as folder:
        count = 16 if args.quick else args.count
        if args.annotations and args.images:
            records = read_coco(args.annotations, args.images)
        else:
            records = read_coco(*write_pictures(Path(folder), count))
        records = replace(records, images=[r for r in records.images if len(r.boxes)][:count])
        model = FSAF(config.model, 80)

        def to_network() -> None:
            for batch in ours(records, data, args.batch):
                model.normalise(batch.images, batch.boxes.sizes)

        figures: dict[str, Any] = {"images": len(records.images), "batch": args.batch}
        to_batch: dict[str, Any] = {"fsaf": lambda: ours(records, data, args.batch)}
        to_net: dict[str, Any] = {"fsaf": to_network}
        if peers.has_mmdetection():
            path = Path(folder) / "theirs.pth"
            peers.write_ours(path, config)
            theirs = peers.MMDetection(path, "resnet50", "cpu", (data.long_side, data.short_side))
            straight, mirrored = theirs.pipeline(boxes=True), theirs.pipeline(boxes=True, flip=0.5)
            preprocess = theirs.model.data_preprocessor
            rows = rows_of(records)

            def batches() -> list[dict[str, list[Any]]]:
                found = []
                for start in range(0, len(rows), args.batch):
                    some = [mirrored(dict(row)) for row in rows[start : start + args.batch]]
                    found.append({key: [row[key] for row in some] for key in some[0]})
                return found

            apart = 0
            for batch in ours(records, replace(data, flip=0.0), 1):
                row = next(row for row in rows if row["img_id"] == batch.ids[0])
                expected = straight(dict(row))["inputs"].flip(0)
                height, width = batch.boxes.sizes[0].tolist()
                assert expected.shape[1:] == (height, width), "the sizes differ"
                pixels = batch.images[0, :, :height, :width]
                apart = max(apart, int((pixels.int() - expected.int()).abs().max()))
            figures["check"] = timing.check("pixels of 255", apart, 1)
            from mmengine.model import stack_batch

            to_batch["MMDetection, not yet a batch"] = batches
            to_batch["MMDetection"] = lambda: [stack_batch(batch["inputs"], 32) for batch in batches()]
            to_net["MMDetection"] = lambda: [preprocess(batch, training=True) for batch in batches()]
        else:
            print(peers.MISSING)
        repeat = 1 if args.quick else args.repeat
        for title, contenders in (("files to batch", to_batch), ("files to network", to_net)):
            times = timing.alternate(contenders, repeat, device)
            figures[title] = timing.compare(title, times, "fsaf", len(records.images))
    timing.finish(args, device, figures)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
