"""Feature pyramid P3..P7 (FPN, Lin et al. 2017; P6 and P7 as in RetinaNet, without the ReLU between them)."""

import functools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fsaf.model.separable import convolution


class Pyramid(nn.Module):
    """Map C3, C4 and C5 to five levels with the same number of channels.

    P6 is a 3x3 stride-2 convolution of C5, P7 the same of P6. Upsampling takes the nearest neighbour.
    separable: make the 3x3 convolutions depthwise separable.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, separable: bool = False) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        conv = functools.partial(convolution, separable=separable)
        self.smooth = nn.ModuleList(conv(channels, channels) for _ in in_channels)
        self.p6 = conv(in_channels[-1], channels, stride=2)
        self.p7 = conv(channels, channels, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.groups == 1:
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return P3..P7 (B, channels, H_l, W_l); features: C3, C4, C5 (B, C_l, H/s, W/s), s = 8, 16, 32."""
        merged = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            above = F.interpolate(merged[i], size=merged[i - 1].shape[-2:], mode="nearest")
            merged[i - 1] = merged[i - 1] + above
        levels = [smooth(x) for smooth, x in zip(self.smooth, merged, strict=True)]
        p6 = self.p6(features[-1])
        return [*levels, p6, self.p7(p6)]
