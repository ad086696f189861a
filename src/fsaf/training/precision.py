"""Mixed precision O1: the network computes in half precision, weights and losses stay float32.

Nothing here waits for the device: the loss scale and the overflow flag are tensors.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fsaf.config import Config, TrainConfig
from fsaf.config.fields import AUTO
from fsaf.device import bf16_unit, is_accelerator
from fsaf.processes import group
from fsaf.training.flat import FlatOptimizer

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
START_SCALE = 2.0**16
GROWTH, BACKOFF, INTERVAL = 2.0, 0.5, 2000
"""A dynamic scale doubles after INTERVAL good steps in a row and halves at each overflow."""


def fit_precision(
    config: Config, device: torch.device, earlier: Config | None = None
) -> tuple[Config, list[str]]:
    """Return ``config`` with bf16 or fp32 if ``train.precision`` is ``auto``, and a note about it.

    bf16 if the devices of all processes compute in it. earlier: of the checkpoint that a run resumes from,
    whose precision stays on any device. The note also warns of a CPU that emulates bf16.
    """
    unit = bf16_unit(device)
    notes = []
    if config.train.precision == AUTO:
        chosen = earlier.train.precision if earlier else _choose(unit)
        config = replace(config, train=replace(config.train, precision=chosen))
        what = "device" if is_accelerator(device) else "CPU"
        computes = f"computes it ({unit})" if unit else "does not compute in bf16"
        why = "the run began with it" if earlier else f"this {what} {computes}"
        if chosen == "fp32" and unit and not earlier:
            why = "the device of another process does not compute in bf16"
        notes.append(f"precision: {chosen}, because {why}")
    if config.train.precision == "bf16" and unit is None and not is_accelerator(device):
        notes.append(
            "warning: this CPU has no bf16 arithmetic (avx512_bf16, amx_bf16) and emulates it, which takes "
            "several times as long; --train.precision fp32 goes on in float32, with other rounding"
        )
    return config, notes


def _choose(unit: str | None) -> Literal["fp32", "bf16"]:
    return "bf16" if all(group.gather_all(unit)) else "fp32"


class Precision:
    """Autocast for the forward pass, loss scaling and clipping for the backward pass."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.device, self.dtype = device, TYPES[config.precision]
        self.skips_overflow = self.dtype is torch.float16
        """True if a step whose gradients are not finite is skipped."""
        self.dynamic = config.loss_scale == "dynamic" and self.skips_overflow
        start = START_SCALE if config.loss_scale == "dynamic" else float(config.loss_scale)
        self.scale = torch.full((), start if self.skips_overflow else 1.0, device=device)
        self.good_steps = torch.zeros((), dtype=torch.int32, device=device)

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Return the context for the forward pass of the network."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass; it adds to the gradients, which stay scaled until ``step``."""
        (loss * self.scale).backward()

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], clip: float
    ) -> Tensor:
        """Update the weights with the gradients of ``backward``; return the norm before clipping.

        optimizer: of ``make_optimizer``. With fp16, a step whose gradients overflow is skipped, and a dynamic
        scale shrinks. clip: largest norm, to which gradients are scaled down; 0 turns clipping off.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        scaled_norm = nn.utils.get_total_norm(gradients)
        norm = scaled_norm / self.scale
        factor = 1 / self.scale
        if clip:
            factor = factor * (clip / (norm + 1e-6)).clamp(max=1.0)
        if isinstance(optimizer, FlatOptimizer):
            gradients = optimizer.gather_gradients()
        torch._foreach_mul_(gradients, factor)
        if not self.skips_overflow:
            optimizer.step()
            return norm
        overflow = (~scaled_norm.isfinite()).float()
        assert getattr(optimizer, "_step_supports_amp_scaling", False), "this optimizer cannot skip steps"
        optimizer.found_inf = overflow  # type: ignore[attr-defined]
        optimizer.step()
        if self.dynamic:
            torch._amp_update_scale_(self.scale, self.good_steps, overflow, GROWTH, BACKOFF, INTERVAL)
        return norm

    @property
    def loss_scale(self) -> float:
        """Return the current loss scale; 1 without fp16. Waits for the device."""
        return float(self.scale)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs; empty without fp16."""
        if not self.skips_overflow:
            return {}
        return {"scale": self.scale.clone(), "good_steps": self.good_steps.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a dynamic scale. Do nothing if this run has another precision or a fixed scale."""
        if state and self.dynamic:
            self.scale.copy_(torch.as_tensor(state["scale"]))
            self.good_steps.copy_(torch.as_tensor(state["good_steps"]))
