"""The detector network: pixels to raw tensors.

Shapes: B batch, C classes, H and W of the padded batch, P all locations of all levels, N all anchors.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fsaf.config import ModelConfig
from fsaf.model.anchors import KINDS, make_anchors
from fsaf.model.backbone import Backbone
from fsaf.model.head import Head
from fsaf.model.points import STRIDES, Points, make_points
from fsaf.model.pyramid import Pyramid


class RawOutputs(NamedTuple):
    """What the head says, float32, before any decoding; of a branch that it has not, nothing."""

    logits: Sequence[Tensor]
    """(B, C, H_l, W_l) of each level."""
    distances: Sequence[Tensor]
    """(B, 4, H_l, W_l) of each level, >= 0: top, bottom, left, right in units of 4 strides."""
    anchor_logits: Sequence[Tensor] = ()
    """(B, KINDS * C, H_l, W_l) of each level, kind by kind of anchor."""
    anchor_deltas: Sequence[Tensor] = ()
    """(B, KINDS * 4, H_l, W_l) of each level: see ``fsaf.model.anchors``."""

    def flat(self) -> tuple[Tensor, Tensor, Points]:
        """All levels in one: logits (B, C, P), distances (B, 4, P), and the P locations."""
        shapes = [(x.shape[-2], x.shape[-1]) for x in self.logits]
        points = make_points(shapes, STRIDES, self.logits[0].device)
        logits_bcp = torch.cat([x.flatten(2) for x in self.logits], 2)
        distances_b4p = torch.cat([x.flatten(2) for x in self.distances], 2)
        return logits_bcp, distances_b4p, points

    def flat_anchors(self) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """All levels in one: logits (B, C, N), deltas (B, 4, N), anchors (4, N); and N of each level."""
        shapes = [(x.shape[-2], x.shape[-1]) for x in self.anchor_logits]
        logits_bcn, deltas_b4n = (
            torch.cat([x.unflatten(1, (KINDS, -1)).transpose(1, 2).flatten(2) for x in part], 2)
            for part in (self.anchor_logits, self.anchor_deltas)
        )
        anchors_4n = make_anchors(shapes, STRIDES, logits_bcn.device)
        return logits_bcn, deltas_b4n, anchors_4n, [KINDS * height * width for height, width in shapes]


class FSAF(nn.Module):
    """Backbone, pyramid and head (Zhu, He and Savvides, CVPR 2019, section 3.1).

    Weights are random; ``fsaf.model.weights`` loads pretrained ones into the backbone; ``fsaf.load`` opens
    a trained detector, whose ``model`` this is.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = Backbone(
            config.backbone, frozen_stages=config.frozen_stages, frozen_norm=config.frozen_norm
        )
        self.pyramid = Pyramid(self.backbone.channels, config.channels)
        self.head = Head(config.channels, config.convs, config.norm, num_classes, config.branches)
        features = self.backbone.features
        mean, std = config.mean or features.mean, config.std or features.std
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.settings = replace(config, mean=mean, std=std)
        """The settings with the mean and deviation in use. Checkpoints hold these: timm's may change."""

    def normalise(self, images: Tensor, sizes_b2: Tensor | None) -> Tensor:
        """Subtract the mean, divide by the deviation, and set the padding to zero.

        images: (B, 3, H, W) RGB, uint8 or float, 0..255. sizes_b2: (B, 2) height, width of each image inside
        its padding; None where there is no padding.
        """
        # In place, and plane by plane: a third of the time on a CPU.
        x = images.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        x = x.sub_(self.mean).div_(self.std)
        if sizes_b2 is None:
            return x
        rows = torch.arange(images.shape[2], device=images.device) < sizes_b2[:, :1]
        columns = torch.arange(images.shape[3], device=images.device) < sizes_b2[:, 1:]
        inside = rows[:, None, :, None] & columns[:, None, None, :]
        return x.mul_(inside)

    def forward(self, images: Tensor, sizes_b2: Tensor | None = None) -> RawOutputs:
        """Raw tensors of a batch; arguments as in ``normalise``."""
        features = self.backbone(self.normalise(images, sizes_b2))
        return RawOutputs(*self.head(self.pyramid(features)))
