"""MMDetection's FSAF and ours on the same weights and images: detections, losses and times side by side.

    python benchmarks/compare_mmdetection.py CHECKPOINT --annotations FILE.json --images FOLDER

CHECKPOINT is one of MMDetection's or of ours. Needs mmdet, which fsaf itself never does. Any installation of
3.x will do; the figures in docs/coming-from-mmdetection.md were measured with what installs today without
a compiler:

    pip install mmengine==0.10.7 mmcv-lite==2.1.0 mmdet==3.3.0

mmcv-lite is MMCV without its compiled operators. FSAF uses one of them, NMS; where MMCV has none, this script
puts torchvision's in its place.
"""

import argparse
import importlib.util
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torchvision.ops import box_iou, nms

import fsaf
from fsaf.config import DataConfig
from fsaf.convert import read_checkpoint, write_checkpoint
from fsaf.data.coco import read_coco
from fsaf.data.loader import Images, make_loader
from fsaf.data.records import Records
from fsaf.errors import UserError
from fsaf.model.detector import FSAF
from fsaf.objective.objective import objective

CONFIGS = {
    "resnet50": "fsaf_r50_fpn_1x_coco.py",
    "resnet101": "fsaf_r101_fpn_1x_coco.py",
    "resnext101_64x4d": "fsaf_x101-64x4d_fpn_1x_coco.py",
}


def stand_in_for_operators() -> str:
    """Make ``mmcv.ops`` importable where MMCV came without compiled operators; returns what is in use."""
    if importlib.util.find_spec("mmdet") is None:
        sys.exit("mmdet is not installed; this file's first lines say how the figures shown had it installed")
    if importlib.util.find_spec("mmcv._ext") is not None:
        return "MMCV's own operators"

    def absent(name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def raises(*_: Any, **__: Any) -> None:
            raise NotImplementedError(f"mmcv._ext.{name}")

        return raises

    module = ModuleType("mmcv._ext")
    module.nms = lambda boxes, scores, iou_threshold, offset: nms(boxes, scores, iou_threshold)  # type: ignore
    module.__getattr__ = absent  # type: ignore[method-assign]
    sys.modules["mmcv._ext"] = module
    return "mmcv-lite with torchvision's NMS"


class Theirs:
    """MMDetection's detector with its own pipelines."""

    def __init__(self, checkpoint: Path, backbone: str, data: DataConfig, device: str) -> None:
        import mmdet
        from mmcv.transforms import Compose
        from mmdet.utils import register_all_modules
        from mmengine.config import Config

        register_all_modules()
        folder = Path(mmdet.__file__).parent / ".mim" / "configs" / "fsaf"
        config = Config.fromfile(folder / CONFIGS[backbone])
        content = torch.load(checkpoint, weights_only=True, map_location="cpu")
        config.model.bbox_head.num_classes = len(content["meta"]["CLASSES"])
        config.model.backbone.init_cfg = None
        from mmdet.registry import MODELS

        self.model = MODELS.build(config.model).to(device)
        self.model.load_state_dict(content["state_dict"])
        scale = (data.long_side, data.short_side)
        boxes = config.train_dataloader.dataset.pipeline[1]
        pipeline = [*config.test_dataloader.dataset.pipeline]
        steps = [{"type": "LoadImageFromFile"}, {"type": "Resize", "scale": scale, "keep_ratio": True}]
        meta = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
        pack = {**pipeline[-1], "meta_keys": meta}
        self.test_pipeline = Compose([*steps, pack])
        self.train_pipeline = Compose([steps[0], boxes, steps[1], pack])
        self.version = mmdet.__version__

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

    @torch.inference_mode()
    def predict(self, records: Records) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes, scores, labels of the one image of ``records``."""
        found = self.model.eval().test_step(self.batch(records, boxes=False))[0].pred_instances
        return found.bboxes.cpu().numpy(), found.scores.cpu().numpy(), found.labels.cpu().numpy()

    def losses(self, batch: dict[str, list[Any]]) -> dict[str, torch.Tensor]:
        """Loss terms, backward included."""
        self.model.train()
        self.model.zero_grad()
        data = self.model.data_preprocessor(batch, training=True)
        terms = self.model.loss(data["inputs"], data["data_samples"])
        loss_cls, loss_box = sum(terms["loss_cls"]), sum(terms["loss_bbox"])
        (loss_cls + loss_box).backward()
        return {"loss_cls": loss_cls, "loss_box": loss_box, "num_pos": terms["num_pos"]}


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


def matched(theirs: tuple[np.ndarray, np.ndarray, np.ndarray], ours: fsaf.Result) -> tuple[int, float, float]:
    """Detections in both (same label, IoU >= 0.95, score within 0.01), and the largest differences there."""
    boxes, scores, labels = theirs
    if not len(scores) or not len(ours):
        return 0, 0.0, 0.0
    iou = box_iou(torch.from_numpy(boxes), torch.from_numpy(ours.boxes)).numpy()
    close = np.abs(scores[:, None] - ours.scores[None]) <= 0.01
    same = (iou >= 0.95) & close & (labels[:, None] == ours.labels[None])
    free = np.ones(len(ours), bool)
    score_difference, box_difference, count = 0.0, 0.0, 0
    for i in range(len(scores)):
        candidates = np.flatnonzero(same[i] & free)
        if len(candidates):
            j = candidates[np.abs(boxes[i] - ours.boxes[candidates]).max(1).argmin()]
            free[j] = False
            count += 1
            score_difference = max(score_difference, abs(float(scores[i] - ours.scores[j])))
            box_difference = max(box_difference, float(np.abs(boxes[i] - ours.boxes[j]).max()))
    return count, score_difference, box_difference


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
    operators = stand_in_for_operators()
    warnings.filterwarnings("ignore")

    checkpoint = read_checkpoint(args.checkpoint)
    backbone = checkpoint["config"]["model"]["backbone"].split(".")[0]
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
        f"mmdet {theirs.version} ({operators}), fsaf {fsaf.__version__}, torch {torch.__version__}, "
        f"{args.device}, {torch.get_num_threads()} threads of {os.cpu_count()} cores\n"
        f"{backbone}, images resized to {args.short_side} x {args.long_side}\n"
    )

    print(f"{'image':>12} {'mmdet':>6} {'fsaf':>6} {'in both':>8} {'score diff':>11} {'box diff px':>12}")
    for record in records.images:
        one = replace(records, images=[record])
        expected = theirs.predict(one)
        found = detector.predict(record.path)
        count, score, box = matched(expected, found)
        print(f"{record.id:>12} {len(expected[1]):>6} {len(found):>6} {count:>8} {score:>11.1e} {box:>12.1e}")

    model, settings = detector.model, detector.config.objective
    assert isinstance(model, FSAF)
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
            "num_pos": terms.num_pos,
        }

    their_batch = theirs.batch(pair, boxes=True)
    print(f"\nlosses of images {batch.ids}")
    our_terms, their_terms = our_step(), theirs.losses(their_batch)
    for key, value in our_terms.items():
        a, b = float(their_terms[key]), float(value)
        print(f"{key:>12} {a:>12.6g} {b:>12.6g}   relative difference {abs(a - b) / max(abs(a), 1e-9):.1e}")

    one = replace(records, images=records.images[:1])
    rows = (
        ("predict, file to boxes", lambda: theirs.predict(one), lambda: detector.predict(one.images[0].path)),
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
