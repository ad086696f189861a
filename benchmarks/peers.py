"""The detectors that benchmarks measure beside ours, and what is the same for all of them.

Weights follow a rule, so nothing has to be downloaded: a checkpoint of ours is made, and MMDetection gets the
same one through ``fsaf convert``'s code. torchvision's detectors keep their own random weights.

MMDetection: any installation of 3.x will do. Without a compiler,

    pip install mmengine==0.10.7 mmcv-lite==2.1.0 mmdet==3.3.0

mmcv-lite is MMCV without its compiled operators. FSAF uses two of them: NMS, which torchvision's replaces
here, and on CUDA a sigmoid focal loss, which MMDetection's own in PyTorch replaces.
"""

import importlib.util
import logging
import sys
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from fsaf.checkpoints.any_format import write_checkpoint
from fsaf.checkpoints.format import Checkpoint
from fsaf.config import Config
from fsaf.data.batch import Boxes
from fsaf.data.records import Classes
from fsaf.detection.detector import Result
from fsaf.model.detector import FSAF

CONFIGS = {
    "resnet50": "fsaf_r50_fpn_1x_coco.py",
    "resnet101": "fsaf_r101_fpn_1x_coco.py",
    "resnext101_64x4d": "fsaf_x101-64x4d_fpn_1x_coco.py",
}
COMPILED = "MMCV's own operators"
MISSING = "mmdet is not installed; benchmarks/peers.py says how to install it without a compiler"


def has_mmdetection() -> bool:
    """Whether MMDetection can be imported."""
    return importlib.util.find_spec("mmdet") is not None


def stand_in_for_operators() -> str:
    """Make ``mmcv.ops`` importable where MMCV came without compiled operators; returns what is in use."""
    if not has_mmdetection():
        sys.exit(MISSING)
    if importlib.util.find_spec("mmcv._ext") is not None:
        return COMPILED

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


def _focal_loss_without_kernel() -> None:
    """Have MMDetection take its focal loss in PyTorch on CUDA, too, as it does on a CPU."""
    from mmdet.models.losses import focal_loss

    def plain(logits: Tensor, labels: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        classes = logits.shape[1]
        wanted = torch.nn.functional.one_hot(labels, classes + 1)[:, :classes]
        return focal_loss.py_sigmoid_focal_loss(logits, wanted, *args, **kwargs)

    focal_loss.sigmoid_focal_loss = plain


def weights_by_rule(model: FSAF, seed: int = 20260101) -> FSAF:
    """Fill ``model`` with weights that keep activations in range and give some dozens of detections.

    One random generator a tensor, of ``seed`` and the tensor's name.
    """
    state = model.state_dict()
    for name, old in state.items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        shape = tuple(old.shape)
        if not old.is_floating_point():
            continue
        if name.endswith("running_var"):
            value = rng.uniform(0.5, 1.5, shape)
        elif name.endswith("running_mean"):
            value = rng.normal(0, 0.1, shape)
        elif len(shape) == 1 and name.endswith("weight"):
            value = rng.uniform(0.8, 1.2, shape) * (0.3 if "bn3" in name else 1.0)
        elif name == "head.classes.bias":
            value = rng.normal(-4.0, 0.3, shape)
        elif name == "head.distances.bias":
            value = rng.uniform(0.3, 0.8, shape)
        elif len(shape) == 1:
            value = rng.normal(0, 0.02, shape)
        else:
            gain = {"head.classes.weight": 0.12, "head.distances.weight": 0.1}.get(name, 1.0)
            value = rng.normal(0, gain * (2.0 / int(np.prod(shape[1:]))) ** 0.5, shape)
        old.copy_(torch.from_numpy(np.asarray(value, np.float32)))
    return model


def write_ours(path: Path, config: Config, num_classes: int = 80) -> dict[str, Any]:
    """Write a checkpoint of ours (``.pt``) or of MMDetection (``.pth``) with weights by rule; returns it."""
    names = tuple(f"class {i}" for i in range(num_classes))
    classes = Classes(names=names, ids=tuple(range(1, num_classes + 1)))
    model = weights_by_rule(FSAF(config.model, num_classes))
    checkpoint = Checkpoint(config=config, classes=classes, weights=model.state_dict())
    write_checkpoint(path, checkpoint)
    return checkpoint


class MMDetection:
    """MMDetection's FSAF of a checkpoint in its layout, with its own pipelines, preprocessor and loop."""

    def __init__(self, checkpoint: Path, backbone: str, device: str, scale: tuple[int, int]) -> None:
        self.operators = stand_in_for_operators()
        warnings.filterwarnings("ignore")
        logging.disable(logging.WARNING)
        import mmdet
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules
        from mmengine.config import Config as MMConfig

        register_all_modules()
        if self.operators != COMPILED:
            _focal_loss_without_kernel()
        folder = Path(mmdet.__file__).parent / ".mim" / "configs" / "fsaf"
        self.config = MMConfig.fromfile(folder / CONFIGS[backbone])
        content = torch.load(checkpoint, weights_only=True, map_location="cpu")
        self.config.model.bbox_head.num_classes = len(content["meta"]["CLASSES"])
        self.config.model.backbone.init_cfg = None
        self.model = MODELS.build(self.config.model).to(device)
        self.model.load_state_dict(content["state_dict"])
        self.device, self.scale, self.version = device, scale, mmdet.__version__

    def pipeline(self, *, boxes: bool, flip: float = 0.0) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """The recipe's steps from a file (and its boxes) to what the loader collates."""
        from mmcv.transforms import Compose

        loads_boxes = self.config.train_dataloader.dataset.pipeline[1]
        meta = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
        return Compose(
            [
                {"type": "LoadImageFromFile"},
                *([loads_boxes] if boxes else []),
                {"type": "Resize", "scale": self.scale, "keep_ratio": True},
                *([{"type": "RandomFlip", "prob": flip}] if flip else []),
                {"type": "PackDetInputs", "meta_keys": (*meta, *(("flip",) if flip else ()))},
            ]
        )

    def in_memory(self, images: Tensor, boxes: Boxes) -> dict[str, list[Any]]:
        """A batch as the loader would hand it over, of RGB images (B, 3, H, W) uint8 and padded boxes."""
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        samples = []
        for i in range(len(images)):
            height, width = boxes.sizes[i].tolist()
            meta = {"img_shape": (height, width), "ori_shape": (height, width), "scale_factor": (1.0, 1.0)}
            sample = DetDataSample(metainfo={**meta, "img_id": i, "img_path": ""})
            for key, chosen in (
                ("gt_instances", boxes.valid[i] & ~boxes.crowd[i]),
                ("ignored_instances", boxes.valid[i] & boxes.crowd[i]),
            ):
                setattr(
                    sample,
                    key,
                    InstanceData(
                        bboxes=boxes.xyxy[i][chosen].clone(), labels=boxes.labels[i][chosen].clone()
                    ),
                )
            samples.append(sample)
        bgr = [
            image[:, :height, :width].flip(0).contiguous()
            for image, (height, width) in zip(images, boxes.sizes.tolist(), strict=True)
        ]
        return {"inputs": bgr, "data_samples": samples}

    @torch.no_grad()
    def predict(self, batch: dict[str, list[Any]]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Boxes, scores, labels of each image."""
        found = [sample.pred_instances for sample in self.model.eval().test_step(batch)]
        return [(x.bboxes.cpu().numpy(), x.scores.cpu().numpy(), x.labels.cpu().numpy()) for x in found]

    def losses(self, batch: dict[str, list[Any]]) -> dict[str, Tensor]:
        """Loss terms, backward included."""
        self.model.train()
        self.model.zero_grad()
        data = self.model.data_preprocessor(batch, training=True)
        terms = self.model.loss(data["inputs"], data["data_samples"])
        loss_cls, loss_box = sum(terms["loss_cls"]), sum(terms["loss_bbox"])
        (loss_cls + loss_box).backward()
        return {"loss_cls": loss_cls, "loss_box": loss_box, "num_pos": terms["num_pos"]}

    def trainer(self, precision: str) -> Callable[[dict[str, list[Any]]], dict[str, Tensor]]:
        """Its own training step: SGD and clipping as the recipe says, its AMP wrapper for bf16 and fp16."""
        from mmengine.optim import AmpOptimWrapper, OptimWrapper

        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        sgd = torch.optim.SGD(trained, lr=1e-4, momentum=0.9, weight_decay=1e-4)
        clip = {"max_norm": 10, "norm_type": 2}
        wrapper: Any = OptimWrapper(sgd, clip_grad=clip)
        if precision != "fp32":
            dtype = {"bf16": "bfloat16", "fp16": "float16"}[precision]
            wrapper = AmpOptimWrapper(optimizer=sgd, clip_grad=clip, dtype=dtype)
        self.model.train()
        return lambda batch: self.model.train_step(batch, wrapper)


def matched(theirs: tuple[np.ndarray, np.ndarray, np.ndarray], ours: Result) -> tuple[int, float, float]:
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


TORCHVISION = {"FCOS": "fcos_resnet50_fpn", "RetinaNet": "retinanet_resnet50_fpn"}


class Torchvision:
    """torchvision's FCOS or RetinaNet with ResNet-50 and random weights; images keep their size."""

    def __init__(self, name: str, device: str, size: tuple[int, int], num_classes: int = 80) -> None:
        import torchvision

        build = getattr(torchvision.models.detection, TORCHVISION[name])
        # Three stages train, as here; its transform then leaves images of this size as they are.
        self.model = build(
            weights=None,
            weights_backbone=None,
            num_classes=num_classes,
            trainable_backbone_layers=3,
            min_size=min(size),
            max_size=max(size),
            norm_layer=torchvision.ops.FrozenBatchNorm2d,
        ).to(device)
        for name_, parameter in self.model.backbone.body.named_parameters():
            parameter.requires_grad_(not name_.startswith(("conv1", "layer1")))
        self.version = torchvision.__version__

    @staticmethod
    def in_memory(images: Tensor, boxes: Boxes) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """Images 0..1 and boxes as its detectors take them, on the device of ``images``."""
        targets = [
            {
                "boxes": boxes.xyxy[i][boxes.valid[i]].to(images.device),
                "labels": boxes.labels[i][boxes.valid[i]].to(images.device),
            }
            for i in range(len(images))
        ]
        return [image.float() / 255 for image in images], targets

    @torch.no_grad()
    def predict(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Detections of each image."""
        return self.model.eval()(list(images))

    def trainer(self, precision: str) -> Callable[[list[Tensor], list[dict[str, Tensor]]], Tensor]:
        """A plain training step of PyTorch's: autocast, SGD, clipping, a gradient scaler with fp16."""
        device = next(self.model.parameters()).device.type
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        sgd = torch.optim.SGD(trained, lr=1e-4, momentum=0.9, weight_decay=1e-4)
        scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self.model.train()

        def step(images: list[Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
            with torch.autocast(device, dtype, enabled=precision != "fp32"):
                loss = sum(self.model(images, targets).values())
            sgd.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(sgd)
            torch.nn.utils.clip_grad_norm_(trained, 10)
            scaler.step(sgd)
            scaler.update()
            return loss

        return step
