"""Take weights from a checkpoint of other classes, or of a similar network (``--init``).

A layer is taken whole or not at all, and so is the backbone, because weights depend on those around them.
Layers that score classes are taken class by class, matched by name.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fsaf.checkpoints.format import Checkpoint
from fsaf.data.records import Classes
from fsaf.errors import CheckpointError
from fsaf.model.anchors import KINDS
from fsaf.model.detector import FSAF
from fsaf.text import printable

CLASS_LAYERS = {"head.classes": 1, "head.anchor_classes": KINDS}
"""Layers with outputs for each class, and their outputs per class, ordered by anchor kind, then class."""
BACKBONE = "backbone."


@dataclass(kw_only=True)
class Transfer:
    """The weights that a network takes from a checkpoint."""

    state: dict[str, Tensor]
    """The tensors to load. Rows of new classes hold the network's own initial values."""
    backbone: bool
    """True if the backbone is taken."""
    kept: list[str]
    """Classes of the network that the checkpoint scores too."""
    new: list[str]
    """Classes of the network that the checkpoint does not score."""
    missing: list[str]
    """Layers of the network that are not in the checkpoint."""
    other_shape: list[str]
    """Layers that have another shape in the checkpoint."""
    unused: list[str]
    """Layers of the checkpoint that are not in the network."""

    def lines(self, where: str, total: int) -> list[str]:
        """Return lines to print. where: the checkpoint's file. total: tensors of the network."""
        whole = [name for name in self.state if not (self.new and _layer(name) in CLASS_LAYERS)]
        text = f"from {where}: {len(whole)} of {total} weights"
        if self.new:
            text += f"; class rows kept: {_list(self.kept)}; new: {_list(self.new)}"
        lines = [text]
        if not self.backbone:
            lines.append(f"from {where}: its backbone differs and is not used; see model.weights")
        for why, layers in (
            ("initialised anew, not in the file", self.missing),
            ("initialised anew, other shape in the file", self.other_shape),
            ("not used", self.unused),
        ):
            if layers:
                lines.append(f"from {where}: {why}: {_list(layers)}")
        return lines


def plan_transfer(model: FSAF, classes: Classes, checkpoint: Checkpoint, where: str) -> Transfer:
    """Return what ``model``, which detects ``classes``, takes from ``checkpoint``, read from file ``where``.

    Raises UserError if the file contradicts itself, or has no layer in common with the network.
    """
    theirs, own = checkpoint.weights, model.state_dict()
    known = checkpoint.classes.names
    rows = [known.index(name) if name in known else -1 for name in classes.names]
    backbone = all(_fits(own, theirs, name) for name in own if name.startswith(BACKBONE))
    state: dict[str, Tensor] = {}
    missing, other_shape = [], []
    for layer, names in _layers(own).items():
        if layer.startswith(BACKBONE) and not backbone:
            continue
        if any(name not in theirs for name in names):
            missing.append(layer)
        elif layer in CLASS_LAYERS:
            _check_rows(theirs, names, CLASS_LAYERS[layer] * len(known), where)
            if any(theirs[name].shape[1:] != own[name].shape[1:] for name in names):
                other_shape.append(layer)
            elif max(rows) >= 0:
                kinds = CLASS_LAYERS[layer]
                state |= {name: _mix_rows(own[name], theirs[name], rows, kinds) for name in names}
        elif all(_fits(own, theirs, name) for name in names):
            state |= {name: theirs[name] for name in names}
        else:
            other_shape.append(layer)
    if not {name for name, _ in model.named_parameters()} & set(state):
        raise CheckpointError(
            f"{where}: no layer fits this network (the file's backbone is "
            f"{checkpoint.config.model.backbone}); give init a checkpoint of a similar network"
        )
    scored = any(_layer(name) in CLASS_LAYERS for name in state)
    kept = [name for name, row in zip(classes.names, rows, strict=True) if row >= 0 and scored]
    return Transfer(
        state=state,
        backbone=backbone,
        kept=kept,
        new=[name for name in classes.names if name not in kept],
        missing=missing,
        other_shape=other_shape,
        unused=[x for x in _layers(theirs) if x not in _layers(own) and not x.startswith(BACKBONE)],
    )


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _layers(state: dict[str, Tensor]) -> dict[str, list[str]]:
    """Return the names of a state dict by layer."""
    layers: dict[str, list[str]] = {}
    for name in state:
        layers.setdefault(_layer(name), []).append(name)
    return layers


def _fits(own: dict[str, Tensor], theirs: dict[str, Tensor], name: str) -> bool:
    return name in theirs and theirs[name].shape == own[name].shape


def _check_rows(theirs: dict[str, Tensor], names: list[str], rows: int, where: str) -> None:
    for name in names:
        if len(theirs[name]) != rows:
            raise CheckpointError(
                f"{where}: {name} has {len(theirs[name])} rows, but its classes need {rows}; is it damaged?"
            )


def _mix_rows(own: Tensor, theirs: Tensor, rows: list[int], kinds: int) -> Tensor:
    """Return ``own`` (kinds * C, ...) with rows of ``theirs`` (kinds * C', ...).

    Class c takes the rows of class ``rows[c]`` of ``theirs``, or keeps its own if that is -1.
    """
    at = torch.tensor(rows)
    mixed = own.detach().clone().unflatten(0, (kinds, -1))
    mixed[:, at >= 0] = theirs.to(own.dtype).unflatten(0, (kinds, -1))[:, at[at >= 0]]
    return mixed.flatten(0, 1)


def _list(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return printable(", ".join(names[:most]) + more if names else "none")
