"""The anchor-free head, shared by all levels: class logits and four distances at every location."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

PRIOR = 0.01
"""Score that every class starts with (RetinaNet, section 4.1)."""


def _branch(channels: int, convs: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(convs):
        layers.append(nn.Conv2d(channels, channels, 3, padding=1, bias=norm == "none"))
        if norm == "group":
            layers.append(nn.GroupNorm(32, channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Head(nn.Module):
    """Two towers of 3x3 convolutions with one output convolution each (FSAF, section 3.1)."""

    def __init__(self, channels: int, convs: int, norm: str, num_classes: int) -> None:
        super().__init__()
        self.class_tower = _branch(channels, convs, norm)
        self.box_tower = _branch(channels, convs, norm)
        self.classes = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.distances = nn.Conv2d(channels, 4, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        assert self.classes.bias is not None and self.distances.bias is not None
        nn.init.constant_(self.classes.bias, -math.log((1 - PRIOR) / PRIOR))
        nn.init.constant_(self.distances.bias, 0.25)

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """levels: (B, channels, H_l, W_l) each.

        Returns logits (B, C, H_l, W_l) and distances (B, 4, H_l, W_l) >= 0 (top, bottom, left, right in units
        of 4 strides) of each level, in float32 also under autocast.
        """
        logits = [self.classes(self.class_tower(x)).float() for x in levels]
        distances = [torch.relu(self.distances(self.box_tower(x)).float()) for x in levels]
        return logits, distances
