"""Optimizer, and the moving average of weights."""

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from fsaf.config import OptimConfig
from fsaf.device import fused_step_can_be_skipped
from fsaf.training.flat import Flat, FlatAdamW, FlatSGD

M = TypeVar("M", bound=nn.Module)


def make_optimizer(model: nn.Module, config: OptimConfig, tensor_rate: bool = False) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters that train; to be called once they lie on their device.

    Setting the attribute ``found_inf``, a tensor, skips a step on the device: weights, state and step count
    stay as they are. PyTorch's fused optimizers do that; for devices on which they do not there are
    ``FlatSGD`` and ``FlatAdamW``.
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
    fused = fused_step_can_be_skipped(parameters[0].device)
    if config.name == "adamw":
        adamw = torch.optim.AdamW(
            groups, weight_decay=config.weight_decay, fused=fused, capturable=tensor_rate and fused
        )
        return adamw if fused else FlatAdamW(adamw)
    sgd = torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused)
    if not fused:
        return FlatSGD(sgd)
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
        values = _floats(self.model)
        self._mine, self._theirs = Flat(values), Flat(values)
        self._mine.copy_from(values)
        for value, view in zip(values, self._mine.views, strict=True):
            value.data = view
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
        self._theirs.copy_from(_floats(model))
        self._mine.data += (self._theirs.data - self._mine.data) * share
        self._updates += 1


def _floats(model: nn.Module) -> list[Tensor]:
    """Weights and statistics of batch norm."""
    return [value for value in (*model.parameters(), *model.buffers()) if value.is_floating_point()]
