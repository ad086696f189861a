"""Merge batch norms into the convolutions before them, for prediction: the same function in fewer steps."""

import copy
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fsaf.model.detector import FSAF

TOLERANCE = 1e-3
"""Of the largest value of a feature map. Rounding alone differs by about 1e-6 of it."""


@torch.no_grad()
def fold_batch_norms(model: FSAF) -> FSAF:
    """Return ``model`` with the batch norms of its backbone merged into its convolutions.

    model: in eval mode; it stays as it is. Pyramid and head are shared with the result, and so is the
    backbone if it has no batch norm that can be merged. Feature maps differ by rounding, about 1e-6 of their
    largest value.
    """
    body = copy.deepcopy(model.backbone)
    image = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64).to(model.mean.device)
    before = body(image)
    names = {module: name for name, module in body.named_modules()}
    pairs = _pairs(body, image)
    if not pairs:
        return model
    for convolution, norm in pairs:
        _replace(body, names[convolution], fuse_conv_bn_eval(convolution, norm))
        _replace(body, names[norm], norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity())
    # A backbone that also uses the output of a convolution elsewhere would compute something else.
    for map_before, map_after in zip(before, body(image), strict=True):
        if (map_before - map_after).abs().max() > TOLERANCE * map_before.abs().max():
            return model
    folded = copy.copy(model)
    folded._modules = {**model._modules, "backbone": body}
    return folded


def _pairs(body: nn.Module, image: Tensor) -> list[tuple[Any, Any]]:
    """Return the convolutions whose output goes straight into a batch norm, each with that norm."""
    made: dict[int, nn.Module] = {}
    kept: list[Tensor] = []  # while they live, no other tensor can get their id
    pairs: list[tuple[Any, Any]] = []

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            made[id(output)] = module
            kept.append(output)
        elif id(inputs[0]) in made and module.track_running_stats:
            pairs.append((made.pop(id(inputs[0])), module))

    hooks = [
        module.register_forward_hook(note)
        for module in body.modules()
        if isinstance(module, (nn.Conv2d, _BatchNorm))
    ]
    try:
        body(image)
    finally:
        for hook in hooks:
            hook.remove()
    return pairs


def _replace(body: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(body.get_submodule(parent), child, module)
