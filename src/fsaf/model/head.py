"""The head, shared by all levels: predictions at every location, anchor-free, anchor-based or both."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fsaf.model.anchors import KINDS
from fsaf.model.outputs import AnchorOutputs, FreeOutputs, RawOutputs
from fsaf.model.separable import convolution

PRIOR = 0.01
"""Score of every class before training (RetinaNet, section 4.1)."""


def _tower(channels: int, convs: int, norm: str, separable: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convs):
        conv = convolution(channels, channels, separable=separable, bias=norm == "none")
        layers += conv if isinstance(conv, nn.Sequential) else [conv]
        if norm == "group":
            layers.append(nn.GroupNorm(32, channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Head(nn.Module):
    """Two towers of 3x3 convolutions, for classes and for boxes (FSAF, section 3.1).

    Each branch adds one output convolution to each tower.
    channels: of pyramid and towers. convs: convolutions of a tower. norm: ``none`` or ``group``.
    separable: make the convolutions of the towers depthwise separable.
    branches: ``anchor_free``, ``anchor_based`` or both, which then share the towers.
    """

    def __init__(
        self,
        channels: int,
        convs: int,
        norm: str,
        num_classes: int,
        branches: Sequence[str] = ("anchor_free",),
        separable: bool = False,
    ) -> None:
        super().__init__()
        self.class_tower = _tower(channels, convs, norm, separable)
        self.box_tower = _tower(channels, convs, norm, separable)
        self.classes = self.distances = self.anchor_classes = self.anchor_deltas = None
        if "anchor_free" in branches:
            self.classes = nn.Conv2d(channels, num_classes, 3, padding=1)
            self.distances = nn.Conv2d(channels, 4, 3, padding=1)
        if "anchor_based" in branches:
            self.anchor_classes = nn.Conv2d(channels, KINDS * num_classes, 3, padding=1)
            self.anchor_deltas = nn.Conv2d(channels, KINDS * 4, 3, padding=1)
        for module in self.modules():
            # Separable convolutions keep their own weights: with 0.01 the features would fade.
            if isinstance(module, nn.Conv2d) and module.groups == 1 and module.kernel_size != (1, 1):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for classes in (self.classes, self.anchor_classes):
            if classes is not None and classes.bias is not None:
                nn.init.constant_(classes.bias, -math.log((1 - PRIOR) / PRIOR))
        if self.distances is not None and self.distances.bias is not None:
            nn.init.constant_(self.distances.bias, 0.25)

    def forward(self, levels: Sequence[Tensor]) -> RawOutputs:
        """Compute the outputs of each branch, in float32 even under autocast.

        levels: (B, channels, H_l, W_l) each.
        """
        for_class, for_box = ([tower(x) for x in levels] for tower in (self.class_tower, self.box_tower))
        free = anchors = None
        if self.classes is not None and self.distances is not None:
            free = FreeOutputs(
                [self.classes(x).float() for x in for_class],
                [torch.relu(self.distances(x).float()) for x in for_box],
            )
        if self.anchor_classes is not None and self.anchor_deltas is not None:
            anchors = AnchorOutputs(
                [self.anchor_classes(x).float() for x in for_class],
                [self.anchor_deltas(x).float() for x in for_box],
            )
        return RawOutputs(free, anchors)
