"""Check weights that come from a file: their values, and whether they fit a network."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fsaf.checkpoints.structure import fits
from fsaf.config import ModelConfig
from fsaf.errors import CheckpointError, UserError
from fsaf.model.detector import FSAF

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
"""Types of weights. Other floating-point types have too few digits to be weights of a checkpoint."""


def check_values(state: Any, where: str) -> dict[str, Tensor]:
    """Return ``state``, read from ``where``, if it is a state dict with the weights of a trained network.

    Raises CheckpointError for weights that are NaN, infinite or complex, and for a part of a network whose
    kernels are each one repeated number. ``check_weights`` compares names, shapes and types.
    """
    if not fits(state, dict[str, Tensor]):
        raise CheckpointError(f"{where}: holds no state dict, with a tensor for each name, or is damaged")
    varied: dict[str, bool] = {}
    for name, tensor in state.items():
        if not tensor.numel() or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        if tensor.dtype not in FLOATS:
            raise CheckpointError(f"{where}: tensor {name} is {_type(tensor)}; weights must be float32")
        low, high = (float(value) for value in torch.aminmax(tensor.float()))
        if not math.isfinite(low) or not math.isfinite(high):
            raise CheckpointError(
                f"{where}: tensor {name} holds NaN or infinite values; its training went wrong, or the "
                "file is damaged; take an earlier checkpoint"
            )
        if tensor.dim() > 1 and tensor.numel() > 1:
            part = name.split(".")[0]
            varied[part] = varied.get(part, False) or low < high
    if flat := [part for part, varies in varied.items() if not varies]:
        raise CheckpointError(
            f"{where}: all weights in each tensor of {flat[0]} are equal; this is not a trained network"
        )
    return dict(state)


def check_network(config: ModelConfig, classes: int, state: Mapping[str, Tensor], where: str) -> None:
    """Raise CheckpointError unless ``state`` fits the network of ``config``.

    The network is built on ``meta``, without memory: a config from others could ask for too much.
    """
    try:
        with torch.device("meta"):
            model = FSAF(config, classes)
    except UserError as error:  # such as a backbone that timm does not know
        raise CheckpointError(f"{where}: {error}") from error
    check_weights(model, state, where)


def load_weights(model: torch.nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Fill ``model``; raise CheckpointError naming the tensors of file ``where`` that do not fit."""
    check_weights(model, state, where)
    model.load_state_dict(state)


def check_weights(model: torch.nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Raise CheckpointError naming the tensors of file ``where`` that do not fit ``model``."""
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if missing or extra or wrong:
        first = (wrong or missing or extra)[0]
        detail = first
        if wrong:
            detail += f": {list(state[first].shape)} in the file, {list(wanted[first].shape)} in the model"
        raise CheckpointError(
            f"{where}: does not fit the model: {len(wrong)} tensors of another shape, "
            f"{len(missing)} missing, {len(extra)} unknown ({detail}). "
            "Is it of another model or number of classes?"
        )
    for name, tensor in wanted.items():
        if state[name].is_floating_point() != tensor.is_floating_point() or state[name].is_complex():
            raise CheckpointError(
                f"{where}: tensor {name} is {_type(state[name])} instead of {_type(tensor)}; quantised or "
                "otherwise converted weights cannot be read"
            )


def check_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], where: str) -> None:
    """Raise CheckpointError if the state dict of an optimizer in ``where`` is damaged.

    It must have finite tensors of the shapes of the parameters. ``Optimizer.load_state_dict`` does not check.
    """
    groups, by_key = state.get("param_groups"), state.get("state")
    ok = fits(groups, list[dict[str, Any]]) and fits(by_key, dict[int, dict[str, Any]])
    for own, group in zip(optimizer.param_groups, groups if ok and groups else (), strict=False):
        keys, rate = group.get("params"), group.get("lr")
        ok = ok and fits(keys, list[int]) and fits(rate, float | Tensor) and _fits_shape(rate, ())
        for parameter, key in zip(own["params"], keys if ok and keys else (), strict=False):
            values = by_key.get(key, {}) if by_key else {}
            ok = ok and all(_fits_shape(value, parameter.shape) for value in values.values())
    if not ok or not groups:
        raise CheckpointError(f"{where}: the state of its optimizer is damaged; take an earlier checkpoint")


def _fits_shape(value: Any, shape: tuple[int, ...]) -> bool:
    """Return True for a finite number, a finite tensor of ``shape`` or of one number, and None."""
    if isinstance(value, Tensor):
        real = value.dtype in FLOATS or value.dtype in (torch.int64, torch.int32)
        return value.shape in ((), shape) and real and bool(value.isfinite().all())
    return value is None or (fits(value, float) and math.isfinite(value))


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
