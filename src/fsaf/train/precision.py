"""Mixed precision O1: the network's arithmetic in half precision, weights and losses in float32."""

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fsaf.config import TrainConfig

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """Autocast for the forward pass, loss scaling and clipping for the backward pass."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self.device, self.dtype = device, TYPES[config.precision]
        self.static = None if config.loss_scale == "dynamic" else float(config.loss_scale)
        self.scaler = torch.amp.GradScaler(
            device.type, init_scale=self.static or 2.0**16, enabled=self.dtype is torch.float16
        )

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Context of the network's forward pass."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    def step(
        self, loss: Tensor, optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], clip: float
    ) -> Tensor:
        """Backward pass and update. Returns the gradients' norm before clipping.

        With fp16 a step whose gradients overflow is skipped; a dynamic scale then shrinks.
        """
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, clip or float("inf"))
        self.scaler.step(optimizer)
        self.scaler.update(self.static)
        return norm

    @property
    def loss_scale(self) -> float:
        """The factor now in use; 1 without fp16."""
        return float(self.scaler.get_scale())

    @property
    def skips_overflow(self) -> bool:
        """Whether a step whose gradients are not finite leaves the weights as they are."""
        return self.scaler.is_enabled()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs; empty without fp16."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a dynamic scale. A run may also go on in another precision or with a fixed scale."""
        if state and self.static is None:
            self.scaler.load_state_dict(state)
