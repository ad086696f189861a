"""Raw outputs of the network, by branch and level.

Shapes: B batch, C classes, P all locations of all levels, N all anchors of all levels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fsaf.model.anchors import KINDS, make_anchors
from fsaf.model.points import STRIDES, Points, make_points


class FreeOutputs(NamedTuple):
    """Raw outputs of the anchor-free branch, float32."""

    logits: Sequence[Tensor]
    """(B, C, H_l, W_l) of each level."""
    distances: Sequence[Tensor]
    """(B, 4, H_l, W_l) of each level, >= 0: top, bottom, left, right in units of 4 strides."""

    def flat(self) -> tuple[Tensor, Tensor, Points]:
        """Join the levels: logits (B, C, P), distances (B, 4, P), and the P locations."""
        points = make_points(_shapes(self.logits), STRIDES, self.logits[0].device)
        logits_bcp = torch.cat([x.flatten(2) for x in self.logits], 2)
        distances_b4p = torch.cat([x.flatten(2) for x in self.distances], 2)
        return logits_bcp, distances_b4p, points


class AnchorOutputs(NamedTuple):
    """Raw outputs of the anchor-based branch, float32, kind by kind of anchor."""

    logits: Sequence[Tensor]
    """(B, KINDS * C, H_l, W_l) of each level."""
    deltas: Sequence[Tensor]
    """(B, KINDS * 4, H_l, W_l) of each level: see ``fsaf.model.anchors``."""

    def flat(self) -> tuple[Tensor, Tensor, Tensor, list[int]]:
        """Join the levels: logits (B, C, N), deltas (B, 4, N), anchors (4, N); and N of each level."""
        shapes = _shapes(self.logits)
        logits_bcn, deltas_b4n = (
            torch.cat([x.unflatten(1, (KINDS, -1)).transpose(1, 2).flatten(2) for x in part], 2)
            for part in self
        )
        anchors_4n = make_anchors(shapes, STRIDES, logits_bcn.device)
        return logits_bcn, deltas_b4n, anchors_4n, [KINDS * height * width for height, width in shapes]


class RawOutputs(NamedTuple):
    """Raw outputs of a network, by branch; None for a branch that the network does not have."""

    free: FreeOutputs | None = None
    """The anchor-free branch."""
    anchors: AnchorOutputs | None = None
    """The anchor-based branch."""

    def tensors(self) -> list[Tensor]:
        """Return the tensors of all branches: of each its logits, then its boxes, level by level."""
        return [x for branch in self if branch is not None for part in branch for x in part]

    def map(self, function: Callable[[Tensor], Tensor]) -> "RawOutputs":
        """Apply ``function`` to every tensor."""
        free, anchors = (
            None if branch is None else type(branch)(*([function(x) for x in part] for part in branch))
            for branch in self
        )
        return RawOutputs(free, anchors)  # type: ignore[arg-type]


def _shapes(levels: Sequence[Tensor]) -> list[tuple[int, int]]:
    """Return (height, width) of each level."""
    return [(x.shape[-2], x.shape[-1]) for x in levels]
