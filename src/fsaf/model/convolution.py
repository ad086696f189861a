"""3x3 convolutions in float32 on a CPU: the same sums in less time.

Two things are done otherwise than PyTorch does them by itself:

- Forward pass, and gradient with respect to the input: by Winograd's algorithm (Lavin and Gray, CVPR 2016) as
  NNPACK has it, which comes with PyTorch. It takes a fifth of the multiplications and a third of the time.
  Its rounding differs from a plain sum's by about 1e-5 of the values.
- Gradient with respect to the weights: on a CPU with AVX2, oneDNN takes three to four times as long for it in
  channels-last layout as in the other, so it gets the other.

On other devices, in other types, in compiled and exported graphs, and for small maps everything is as
``nn.Conv2d`` does it. docs/performance.md has the measurements.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fsaf.device import has_winograd

MIN_WORK = 200_000
"""Locations times channels (of the fewer, in or out) of an image from which this is faster."""


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution, padded by one, in one group; weights and results as ``nn.Conv2d``'s."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W)."""
        # Subclasses of Tensor trace, and have no memory to give to a library.
        if (
            torch.compiler.is_compiling()
            or type(x) is not Tensor
            or x.dtype is not torch.float32
            or not has_winograd(x.device)
            or torch.is_autocast_enabled(x.device.type)
            or x.numel() // max(len(x), 1) * min(1.0, self.out_channels / self.in_channels) < MIN_WORK
        ):
            return super().forward(x)
        return _Function.apply(x, self.weight, self.bias, self.stride[0])


def speed_up(model: nn.Module) -> None:
    """Turn the convolutions of ``model`` that are of that kind into ``Conv3x3``, in place."""
    for module in model.modules():
        if (
            type(module) is nn.Conv2d
            and module.kernel_size == (3, 3)
            and module.padding == (1, 1)
            and module.dilation == (1, 1)
            and module.stride in ((1, 1), (2, 2))
            and module.groups == 1
            and module.padding_mode == "zeros"
        ):
            module.__class__ = Conv3x3


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
    # Image by image: NNPACK takes its slow way for more than one.
    rows = [torch._nnpack_spatial_convolution(row, kernels, bias, [1, 1], [1, 1]) for row in planes.split(1)]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, stride: int, wanted: list[bool]) -> Any:
    steps, ones, none = [stride, stride], [1, 1], [0, 0]
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, None, steps, ones, ones, False, none, 1, wanted
    )
