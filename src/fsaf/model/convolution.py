"""Faster float32 3x3 convolutions on a CPU, with the weights and results of ``nn.Conv2d``.

``use_winograd`` turns the convolutions of a network that lies on a CPU into these. They differ in two ways:

- The forward pass and the gradient of the input use Winograd's algorithm (Lavin and Gray, CVPR 2016) in
  NNPACK, which is part of PyTorch: a fifth of the multiplications and a third of the time. Rounding differs
  from that of a plain sum by about 1e-5 of the values.
- The gradient of the weights is computed in contiguous layout: on CPUs with AVX2, oneDNN takes three to four
  times as long in channels-last layout.

``nn.Conv2d`` itself runs on other devices, for other types and small maps, and in compiled, exported, traced
(``torch.jit.trace``) and transformed (``torch.func``) programs. docs/lab/speed.md has the measurements.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fsaf.device import has_winograd

MIN_WORK = 200_000
"""Locations of an image times its channels (the fewer of in and out) from which this is faster."""


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with padding 1 and one group."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        if (
            is_transformed(x)
            or x.dtype is not torch.float32
            or not has_winograd(x.device)
            or torch.is_autocast_enabled(x.device.type)
            or x.numel() // max(len(x), 1) * min(1.0, self.out_channels / self.in_channels) < MIN_WORK
        ):
            return super().forward(x)
        return _Function.apply(x, self.weight, self.bias, self.stride[0])


def is_transformed(x: Tensor) -> bool:
    """Return True if PyTorch records or transforms the program, which custom functions do not allow."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or type(x) is not Tensor  # fake and functional tensors have no memory that NNPACK could read
    )


def use_winograd(model: nn.Module, on: bool = True) -> None:
    """Turn the 3x3 convolutions of ``model`` that lie on a CPU into ``Conv3x3``, in place.

    on: False turns them back into ``nn.Conv2d``. The weights stay as they are.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and type(layer) in (nn.Conv2d, Conv3x3):  # no subclass of timm's
            fast = on and _fits(layer) and has_winograd(layer.weight.device)
            layer.__class__ = Conv3x3 if fast else nn.Conv2d


def _fits(layer: nn.Conv2d) -> bool:
    return (
        layer.kernel_size == (3, 3)
        and layer.padding == (1, 1)
        and layer.dilation == (1, 1)
        and layer.stride in ((1, 1), (2, 2))
        and layer.groups == 1
        and layer.padding_mode == "zeros"
    )


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return _convolve(x, weight, bias, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        x_gradient = weight_gradient = bias_gradient = None
        if of_x and ctx.stride == 1:
            x_gradient = _convolve(gradient, weight.flip(2, 3).transpose(0, 1), None, 1)
        elif of_x:
            x_gradient = _backward(gradient, x, weight, ctx.stride, [True, False, False])[0]
        if of_weight:
            planes = (gradient.contiguous(), x.contiguous(), weight.contiguous())
            weight_gradient = _backward(*planes, ctx.stride, [False, True, False])[1]
        if of_bias:
            bias_gradient = gradient.sum((0, 2, 3))
        return x_gradient, weight_gradient, bias_gradient, None


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    if stride != 1 or not len(x):
        return F.conv2d(x, weight, bias, stride, 1)
    planes, kernels = x.contiguous(), weight.contiguous()
    # Image by image: NNPACK is slow for more than one.
    rows = [torch._nnpack_spatial_convolution(row, kernels, bias, [1, 1], [1, 1]) for row in planes.split(1)]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, wanted: list[bool]) -> Any:
    steps, ones, none = [stride, stride], [1, 1], [0, 0]
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, steps, ones, ones, False, none, 1, wanted
    )
