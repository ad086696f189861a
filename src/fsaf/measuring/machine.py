"""Measure what a device can do at most: arithmetic and memory bandwidth."""

import torch

from fsaf.device import is_accelerator
from fsaf.measuring.timing import measure


def matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Return floating-point operations per second of a large matrix product, the most a device reaches."""
    side = 1024
    while True:
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        best = min(measure(lambda: left @ right, device, seconds, 5))  # noqa: B023
        # A short product does not fill the device: double the side, up to a limit.
        if best > 0.002 or side == 8192:
            return 2 * side**3 / best
        side *= 2


def copy_rate(device: torch.device, seconds: float = 1.0) -> float:
    """Return the bytes per second that a copy in the memory of the device reads and writes."""
    source = torch.zeros(2**28 if is_accelerator(device) else 2**26, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / min(measure(lambda: target.copy_(source), device, seconds, 5))
