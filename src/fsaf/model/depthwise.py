"""Faster gradients of depthwise convolutions on a CPU, with the weights and results of ``nn.Conv2d``.

oneDNN has fast kernels for the gradients of depthwise convolutions, but not for all of them. In
channels-last layout it computes these as if they were convolutions of 16 groups, with 16 times the work:

- the gradient of weights that are more than three columns wide. Here it is put together from that of strips
  of three columns;
- in bfloat16, the gradient of the input if the stride is 2. Here it is computed in float32.

``nn.Conv2d`` itself runs on other devices, and in compiled, exported, traced and transformed programs.
docs/lab/speed.md has the measurements.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fsaf.device import is_accelerator
from fsaf.model.convolution import is_transformed

WIDTH = 3
"""Columns of the widest kernel whose weight gradient is fast."""


class Depthwise(nn.Conv2d):
    """A convolution of each channel with one kernel of its own."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        if not _is_trained(x, self.weight):
            return super().forward(x)
        return _convolve(x, self)


class DepthwiseSame(Conv2dSame):
    """The same with TensorFlow's padding."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        if not _is_trained(x, self.weight):
            return super().forward(x)
        return _convolve(pad_same(x, list(self.kernel_size), list(self.stride)), self)


FAST: dict[type, type] = {nn.Conv2d: Depthwise, Conv2dSame: DepthwiseSame}


def speed_up_depthwise(model: nn.Module) -> None:
    """Turn the depthwise convolutions of ``model`` that lie on a CPU into those of this file, in place.

    The weights stay as they are.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and type(layer) in FAST and _fits(layer):
            layer.__class__ = FAST[type(layer)]


def _fits(layer: nn.Conv2d) -> bool:
    return (
        layer.groups == layer.in_channels == layer.out_channels > 1
        and layer.dilation == (1, 1)
        and layer.stride in ((1, 1), (2, 2))
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and not is_accelerator(layer.weight.device)
    )


def _is_trained(x: Tensor, weight: Tensor) -> bool:
    """Return True if gradients will be computed, in the plain way, on a CPU."""
    trained = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return trained and not is_accelerator(x.device) and not is_transformed(x)


def _convolve(x: Tensor, layer: nn.Conv2d) -> Tensor:
    weight, bias = layer.weight, layer.bias
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    assert not isinstance(layer.padding, str)
    y: Tensor = _Function.apply(x, weight, bias, layer.stride, layer.padding)
    return y


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        x_gradient = weight_gradient = bias_gradient = None
        if of_x:
            dtype = x.dtype if stride == (1, 1) else torch.float32
            operands = (gradient.to(dtype), x.to(dtype), weight.to(dtype))
            x_gradient = _backward(*operands, stride, padding, [True, False, False])[0].to(x.dtype)
        if of_weight:
            weight_gradient = _weight_gradient(gradient, x, weight, stride, padding)
        if of_bias:
            bias_gradient = gradient.sum((0, 2, 3))
        return x_gradient, weight_gradient, bias_gradient, None, None


def _weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    (down, side), wanted = padding, [False, True, False]
    whole = weight.shape[3]
    if whole <= WIDTH:
        return _backward(gradient, x, weight, stride, padding, wanted)[1]
    padded = F.pad(x, (side, side)) if side else x
    width = stride[1] * (gradient.shape[3] - 1)  # from the first to the last window
    strips = []
    for left in range(0, whole, WIDTH):
        kernel = weight[:, :, :, left : left + WIDTH].contiguous()
        columns = padded[:, :, :, left : left + width + kernel.shape[3]]
        columns = columns.contiguous(memory_format=torch.channels_last)
        strips.append(_backward(gradient, columns, kernel, stride, (down, 0), wanted)[1])
    return torch.cat(strips, 3)


def _backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    wanted: list[bool],
) -> Any:
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, stride, padding, [1, 1], False, [0, 0], len(weight), wanted
    )
