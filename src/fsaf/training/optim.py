"""Optimizer, and the moving average of weights."""

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from fsaf.config import OptimConfig

M = TypeVar("M", bound=nn.Module)


def make_optimizer(model: nn.Module, config: OptimConfig, tensor_rate: bool = False) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters that train; to be called once they lie on their device.

    Both are PyTorch's fused ones: one operator updates all weights, and a step is called off on the device by
    the attribute ``found_inf``, a tensor: weights, state and step count stay as they are.
    tensor_rate: keep the learning rate on the device, so that a captured step can be given another.
    """
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    parameters = list(trained.values())
    groups: list[dict[str, Any]] = [{"params": parameters, "share": 1.0}]
    if config.backbone_rate != 1:
        inside = [weight for name, weight in trained.items() if name.startswith("backbone.")]
        others = [weight for name, weight in trained.items() if not name.startswith("backbone.")]
        groups = [{"params": others, "share": 1.0}, {"params": inside, "share": config.backbone_rate}]
    for group in groups:
        rate = config.lr * group["share"]
        group["lr"] = torch.full((), rate, device=parameters[0].device) if tensor_rate else rate
    if config.name == "adamw":
        return torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=True, capturable=tensor_rate)
    sgd = torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay, fused=True)
    # The first step as any other, and exact should it be called off: PyTorch would start from empty memory.
    for parameter in parameters if config.momentum else []:
        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the learning rate ``rate``, without waiting for the device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate * group["share"])
        else:
            group["lr"] = rate * group["share"]


class MovingAverage(Generic[M]):
    """Exponential moving average of a model's weights and batch-norm statistics.

    The decay rises from 0.1 to ``decay`` as (1 + n) / (10 + n) over the updates n, so that the first, random
    weights are soon forgotten. n is a tensor beside the weights: an update is the same program each time.
    """

    def __init__(self, model: M, decay: float) -> None:
        self.decay = decay
        self.model: M = copy.deepcopy(model).requires_grad_(False).eval()
        self._updates = torch.zeros((), device=next(model.parameters()).device)

    @property
    def updates(self) -> int:
        """Number of updates. Waits for the device."""
        return int(self._updates)

    @updates.setter
    def updates(self, value: int) -> None:
        self._updates.fill_(value)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of ``model`` after a step."""
        share = (9 / (10 + self._updates)).clamp(min=1 - self.decay)  # of the new weights
        mine, theirs = self.model.state_dict(), model.state_dict()
        floats = [name for name, value in mine.items() if value.is_floating_point()]
        way = torch._foreach_sub([theirs[name] for name in floats], [mine[name] for name in floats])
        torch._foreach_mul_(way, share)
        torch._foreach_add_([mine[name] for name in floats], way)
        self._updates += 1
