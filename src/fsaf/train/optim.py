"""Optimizer, and the moving average of weights."""

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from fsaf.config import OptimConfig

M = TypeVar("M", bound=nn.Module)


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters that train; to be called once they lie on their device.

    Both are PyTorch's fused ones: one operator updates all weights, and a step is called off on the device by
    the attribute ``found_inf``, a tensor: weights, state and step count stay as they are.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.name == "adamw":
        return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    sgd = torch.optim.SGD(
        parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
    )
    # The first step as any other, and exact should it be called off: PyTorch would start from empty memory.
    for parameter in parameters if config.momentum else []:
        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


class MovingAverage(Generic[M]):
    """Exponential moving average of a model's weights and batch-norm statistics.

    The decay rises from 0.1 to ``decay`` as (1 + n) / (10 + n) over the updates n, so that the first, random
    weights are soon forgotten.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.model: M = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of ``model`` after a step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        mine, theirs = self.model.state_dict(), model.state_dict()
        floats = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in floats], [theirs[name] for name in floats], 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Weights and number of updates."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
