"""Count the floating-point operations of a network."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from fsaf.config import Config
from fsaf.model.detector import FSAF


def step_flops(config: Config, classes: int, batch: int, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the operations of the network for ``batch`` images: forward, and forward plus backward.

    A multiplication with its addition counts as two. They are counted on the device ``meta``, which computes
    nothing.
    """
    with torch.device("meta"):
        model = FSAF(config.model, classes).train()
        images = torch.empty(batch, 3, *shape, dtype=torch.uint8)
        # PyTorch's own count of the backward pass ignores groups.
        counts = {torch.ops.aten.convolution_backward: _conv_backward_flops}
        with FlopCounterMode(display=False, custom_mapping=counts) as counter:
            outputs = model(images)
            forward = counter.get_total_flops()
            torch.stack([x.sum() for x in outputs.tensors()]).sum().backward()
        return forward, counter.get_total_flops()


def _conv_backward_flops(
    gradient_shape: Sequence[int], _: Sequence[int], weight_shape: Sequence[int], *rest: Any, **__: Any
) -> int:
    """Return the operations of the gradients: each takes as many as the forward pass.

    The last of ``rest`` says which gradients are computed: input, weight, bias.
    """
    return 2 * math.prod(gradient_shape) * math.prod(weight_shape[1:]) * sum(rest[-1][:2])
