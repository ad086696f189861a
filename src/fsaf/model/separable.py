"""Depthwise separable convolutions (MobileNet, Howard et al. 2017)."""

from torch import nn


def convolution(
    inputs: int, outputs: int, *, separable: bool, stride: int = 1, bias: bool = True
) -> nn.Module:
    """Return a 3x3 convolution with padding 1.

    separable: make it one of 3x3 for each channel and one of 1x1, with about a ninth of the multiplications.
    Its weights are drawn so that the features keep their size, whatever its place in the network.
    """
    if not separable:
        return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=bias)
    spatial = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
    mixing = nn.Conv2d(inputs, outputs, 1, bias=bias)
    nn.init.kaiming_normal_(spatial.weight, nonlinearity="linear")
    nn.init.kaiming_normal_(mixing.weight)
    if mixing.bias is not None:
        nn.init.zeros_(mixing.bias)
    return nn.Sequential(spatial, mixing)
