"""Optimizers for devices that launch operators slowly and cannot skip a fused step, such as Ascend NPUs.

All weights of a parameter group are stored in one flat tensor, and so are gradients and momenta. A step is
then about ten operators, for any number of weights, and a step is skipped without asking the host.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 128
"""Elements: weights start at multiples of 512 bytes, as the allocator of torch_npu aligns tensors."""


class Flat:
    """One tensor that stores several others."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        """Allocate zeros with the sizes and strides of ``tensors``: float32, dense, on one device."""
        sizes = [-(-tensor.numel() // ALIGNMENT) * ALIGNMENT for tensor in tensors]
        self.data = torch.zeros(sum(sizes), device=tensors[0].device)
        """(N,) float32, zero between the tensors."""
        parts = self.data.split(sizes)
        self.views = [
            part.as_strided(tensor.shape, tensor.stride())
            for part, tensor in zip(parts, tensors, strict=True)
        ]
        """The tensors inside ``data``."""

    @torch.no_grad()
    def copy_from(self, tensors: Sequence[Tensor]) -> None:
        """Copy the values of ``tensors``."""
        torch._foreach_copy_(self.views, list(tensors))


class _Group:
    """The flat tensors of a parameter group."""

    def __init__(self, parameters: Sequence[Tensor], names: Sequence[str]) -> None:
        self.parameters = parameters
        self.weights, self.gradients = Flat(parameters), Flat(parameters)
        self.weights.copy_from(parameters)
        for parameter, view in zip(parameters, self.weights.views, strict=True):
            parameter.data = view
        self.state = {name: Flat(parameters) for name in names}
        self.count = torch.zeros((), device=self.weights.data.device)
        """Steps that were not skipped."""

    def views(self, i: int) -> dict[str, Tensor]:
        """Return the state of parameter ``i`` by name, as PyTorch's optimizers keep it."""
        return {name: flat.views[i] for name, flat in self.state.items()}


class FlatOptimizer(torch.optim.Optimizer):
    """Base of ``FlatSGD`` and ``FlatAdamW``. State dicts are interchangeable with PyTorch's optimizers.

    If the attribute ``found_inf``, a tensor, is set and not 0, a step changes nothing, as in PyTorch's fused
    optimizers. A learning rate may be a tensor.
    """

    _step_supports_amp_scaling = True

    def __init__(self, model: torch.optim.Optimizer, names: Sequence[str]) -> None:
        """Take over groups and settings of ``model``, and move its weights into flat tensors.

        names: state tensors of each weight.
        """
        super().__init__(model.param_groups, model.defaults)
        self.flat = [_Group(group["params"], names) for group in self.param_groups]
        self._share_state()

    def _share_state(self) -> None:
        for group in self.flat:
            for i, parameter in enumerate(group.parameters if group.state else []):
                self.state[parameter] = group.views(i)

    def state_dict(self) -> dict[str, Any]:
        """Return the state in the form of PyTorch's optimizers, in which each weight counts its steps."""
        found = super().state_dict()
        found["state"] = {
            i: {name: value.clone() if name == "step" else value for name, value in state.items()}
            for i, state in found["state"].items()
        }
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Copy the values of ``state_dict``, also one of a PyTorch optimizer on another device."""
        super().load_state_dict(state_dict)
        for group in self.flat:
            loaded = [self.state.get(parameter, {}) for parameter in group.parameters]
            for name, flat in group.state.items():
                flat.copy_from([state[name] for state in loaded])
            if "step" in loaded[0]:
                group.count.copy_(loaded[0]["step"])
        self._share_state()

    def gather_gradients(self) -> list[Tensor]:
        """Copy the gradients of all weights into flat tensors and return these; ``step`` reads them."""
        for group in self.flat:
            gradients = [parameter.grad for parameter in group.parameters if parameter.grad is not None]
            assert len(gradients) == len(group.parameters), "a weight has no gradient"
            group.gradients.copy_from(gradients)
        return [group.gradients.data for group in self.flat]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the weights with the gradients that ``gather_gradients`` returned."""
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        for group, settings in zip(self.flat, self.param_groups, strict=True):
            for old, new in self.changes(group, settings):
                old.copy_(new if found_inf is None else torch.where(found_inf > 0, old, new))

    def changes(self, group: _Group, settings: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
        """Return pairs of a tensor and its value after the step. The tensors are not changed."""
        raise NotImplementedError


class FlatSGD(FlatOptimizer):
    """``torch.optim.SGD``."""

    def __init__(self, model: torch.optim.SGD) -> None:
        super().__init__(model, ["momentum_buffer"] if model.defaults["momentum"] else [])

    def changes(self, group: _Group, settings: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
        weights = group.weights.data
        move = group.gradients.data.add(weights, alpha=settings["weight_decay"])
        if not settings["momentum"]:
            return [(weights, weights - move * settings["lr"])]
        buffer = group.state["momentum_buffer"].data
        move = (buffer * settings["momentum"]).add_(move)
        return [(buffer, move), (weights, weights - move * settings["lr"])]


class FlatAdamW(FlatOptimizer):
    """``torch.optim.AdamW``."""

    def __init__(self, model: torch.optim.AdamW) -> None:
        super().__init__(model, ["exp_avg", "exp_avg_sq"])

    def _share_state(self) -> None:
        super()._share_state()
        for group in self.flat:
            for parameter in group.parameters:
                self.state[parameter]["step"] = group.count

    def changes(self, group: _Group, settings: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
        rate, (beta1, beta2) = settings["lr"], settings["betas"]
        weights, gradient = group.weights.data, group.gradients.data
        mean, square = group.state["exp_avg"].data, group.state["exp_avg_sq"].data
        count = group.count + 1
        new_mean = torch.lerp(mean, gradient, 1 - beta1)
        new_square = (square * beta2).addcmul_(gradient, gradient, value=1 - beta2)
        # Apply the bias corrections to one scalar instead of to every element.
        root = _correction(beta2, count).sqrt()
        step = (
            new_mean
            / (new_square.sqrt() + root * settings["eps"])
            * (root / _correction(beta1, count) * rate)
        )
        new_weights = weights * (1 - rate * settings["weight_decay"]) - step
        return [(group.count, count), (mean, new_mean), (square, new_square), (weights, new_weights)]


def _correction(beta: float, count: Tensor) -> Tensor:
    """Return 1 - beta^count, accurate in float32 also if beta^count is close to 1."""
    return -torch.expm1(count * math.log(beta))
