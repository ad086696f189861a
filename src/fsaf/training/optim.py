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
    """Return SGD or AdamW over the trainable parameters of ``model``, which must be on their device.

    If the attribute ``found_inf``, a tensor, is not 0, a step is skipped on the device: weights, state and
    step count stay. PyTorch's fused optimizers support that; other devices use ``FlatSGD`` and ``FlatAdamW``.
    tensor_rate: keep the learning rate in a tensor, so that a captured step can use another one.
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
    # Allocate momentum now: PyTorch creates it uninitialised in the first step, wrong if that is skipped.
    for parameter in parameters if config.momentum else []:
        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group to its share of ``rate``, without waiting for the device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate * group["share"])
        else:
            group["lr"] = rate * group["share"]


class MovingAverage(Generic[M]):
    """Exponential moving average of a model's weights and batch-norm statistics.

    The decay rises from 0.1 to ``decay`` as (1 + n) / (10 + n) after n updates, so that the random initial
    weights soon lose their influence. n is a tensor on the device, so every update is the same program.
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
        """Return the number of updates. Waits for the device."""
        return int(self._updates)

    @updates.setter
    def updates(self, value: int) -> None:
        self._updates.fill_(value)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Average in the weights of ``model`` after a step."""
        share = (9 / (10 + self._updates)).clamp(min=1 - self.decay)  # of the new weights
        self._theirs.copy_from(_floats(model))
        self._mine.data += (self._theirs.data - self._mine.data) * share
        self._updates += 1


def _floats(model: nn.Module) -> list[Tensor]:
    """Return weights and batch-norm statistics."""
    return [value for value in (*model.parameters(), *model.buffers()) if value.is_floating_point()]
