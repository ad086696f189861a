"""torchvision's RetinaNet and FCOS on a recipe's backbone and pyramid, trained as the recipe says.

Everything but the detector is ours and the same for all: initial weights, pictures, their order and
augmentation, optimizer, rates, moving average, metrics.
"""

import itertools
import json
import time
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead

from fsaf.checkpoints.backbone import load_backbone_weights
from fsaf.config import Config
from fsaf.data.batch import Batch
from fsaf.data.records import ground_truth
from fsaf.data.samples import Images
from fsaf.data.workers import make_loader
from fsaf.detection.views import to_original
from fsaf.device import resolve_device
from fsaf.model.backbone import Backbone
from fsaf.model.points import STRIDES
from fsaf.model.pyramid import Pyramid
from fsaf.scoring.metrics import coco_metrics
from fsaf.scoring.results import to_coco_results, write_evaluation
from fsaf.training.optim import MovingAverage, make_optimizer, set_rate
from fsaf.training.prepare import open_for_training
from fsaf.training.schedule import learning_rate, peak_rate

LAYERS = 3
"""Modules of each convolution of a tower: convolution, norm, ReLU."""


class Features(nn.Module):
    """The recipe's backbone and pyramid, as torchvision's detectors want them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        model = config.model
        self.body = Backbone(model.backbone, frozen_stages=model.frozen_stages, frozen_norm=model.frozen_norm)
        self.pyramid = Pyramid(self.body.channels, model.channels)
        self.out_channels = model.channels
        load_backbone_weights(self.body, model.backbone, model.weights)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        levels = self.pyramid(self.body(images))
        return OrderedDict((f"p{i}", level) for i, level in enumerate(levels, start=3))


def make_detector(kind: str, config: Config, num_classes: int) -> nn.Module:
    """``retinanet``, as torchvision's second version has it (group norm, GIoU loss), or ``fcos``.

    Towers have as many convolutions as the recipe says; the rest is torchvision's default.
    """
    features = Features(config)
    model, predict = config.model, config.predict
    options: dict[str, Any] = {
        "min_size": config.data.short_side,
        "max_size": config.data.long_side,
        "image_mean": [value / 255 for value in model.mean or features.body.features.mean],
        "image_std": [value / 255 for value in model.std or features.body.features.std],
        "score_thresh": predict.score_threshold,
        "nms_thresh": predict.nms_iou,
        "detections_per_img": predict.max_detections,
        "topk_candidates": predict.candidates,
        "_skip_resize": True,  # the loader has done it
    }
    if kind == "fcos":
        head: nn.Module = FCOSHead(model.channels, 1, num_classes, num_convs=model.convs)
        return FCOS(features, num_classes, head=head, **options)
    sides = [4 * stride for stride in STRIDES]
    sizes = tuple(tuple(int(side * 2 ** (k / 3)) for k in range(3)) for side in sides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    head = RetinaNetHead(model.channels, 9, num_classes, norm_layer=partial(nn.GroupNorm, 32))
    head.regression_head._loss_type = "giou"
    for part in (head.classification_head, head.regression_head):
        assert isinstance(part.conv, nn.Sequential)
        part.conv = part.conv[: model.convs]
    return RetinaNet(features, num_classes, anchor_generator=anchors, head=head, **options)


def _inputs(batch: Batch, device: torch.device) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images 0..1 without padding, and their boxes; blank rows left out."""
    images, targets = [], []
    for row in range(len(batch.ids)):
        height, width = batch.boxes.sizes[row].tolist()
        images.append(batch.images[row, :, :height, :width].to(device).float() / 255)
        keep = batch.boxes.valid[row] & ~batch.boxes.crowd[row]
        targets.append(
            {
                "boxes": batch.boxes.xyxy[row][keep].to(device),
                "labels": batch.boxes.labels[row][keep].to(device),
            }
        )
    return images, targets


def train_peer(kind: str, config: Config) -> None:
    """Train and score; writes ``metrics.jsonl`` and the files of an evaluation into ``config.out``."""
    device = resolve_device(config.device)
    records, validation, _ = open_for_training(config)
    assert config.out is not None
    torch.manual_seed(config.train.seed)
    model = make_detector(kind, config, len(records.classes))
    model = model.to(device).to(memory_format=torch.channels_last).train()
    optimizer = make_optimizer(model, config.optim)
    average = MovingAverage(model, config.train.ema) if config.train.ema else None
    loader, sampler = make_loader(
        Images(records, config.data, augment=True, seed=config.train.seed),
        config.data.batch_size,
        workers=config.data.workers,
        train=True,
        seed=config.train.seed,
    )
    all_steps = config.train.epochs * sampler.steps
    peak = peak_rate(config.optim, config.data.batch_size)
    step, log = 0, []
    last = min(all_steps, config.train.max_steps or all_steps)
    for epoch in range(config.train.epochs):
        sampler.set_epoch(epoch)
        for batch in itertools.islice(loader, last - step):
            start = time.perf_counter()
            set_rate(optimizer, peak * learning_rate(config.optim, step, sampler.steps, all_steps))
            loss = torch.stack(list(model(*_inputs(batch, device)).values())).sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
            optimizer.step()
            if average:
                average.update(model)
            step += 1
            if step % config.log.every == 0 or step == last:
                print(f"{kind} seed {config.train.seed}: step {step}/{last}, loss {loss.detach():.3f}")
                log.append({"step": step, "step_seconds": time.perf_counter() - start})
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log))
    if validation is not None:
        score(average.model if average else model, config, validation, records.classes.ids)


@torch.no_grad()
def score(model: nn.Module, config: Config, records: Any, ids: list[int]) -> None:
    """COCO's metrics on the validation split."""
    device = next(model.parameters()).device
    model.eval()
    loader, _ = make_loader(
        Images(records, config.data, augment=False), config.data.batch_size, workers=0, train=False
    )
    predictions = []
    for batch in loader:
        sizes = batch.boxes.sizes.tolist()
        for row, found in enumerate(model(_inputs(batch, device)[0])):
            boxes = to_original(found["boxes"].cpu().numpy(), sizes[row], batch.original_sizes[row])
            scores, labels = found["scores"].cpu().numpy(), found["labels"].cpu().numpy()
            predictions += to_coco_results(batch.ids[row], boxes, scores, labels, ids)
    metrics = coco_metrics(ground_truth(records), predictions, category_ids=ids)
    write_evaluation(Path(str(config.out)), {**metrics, "images": len(records.images)}, predictions)
