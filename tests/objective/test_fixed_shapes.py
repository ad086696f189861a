"""The objective's operators and their shapes do not depend on the data: one graph for every batch."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fsaf.config import ObjectiveConfig
from fsaf.objective.objective import objective
from objective.scenes import as_batch, scene_boxes, scene_outputs, with_grad

DATA_DEPENDENT = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}
REDUCTIONS = {
    "sum",
    "mean",
    "prod",
    "cumsum",
    "max",
    "min",
    "amax",
    "amin",
    "argmax",
    "argmin",
    "sort",
    "topk",
}


class Recorder(TorchDispatchMode):
    """Writes down every operator with the shapes and types of its inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple, tuple]] = []
        self.refused: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        taken, given = self._shapes((args, kwargs or {})), self._shapes(result)
        self.calls.append((str(func), taken, given))
        if DATA_DEPENDENT & set(func.tags):
            self.refused.append(f"{func}: its result's shape or a value on the host depends on the data")
        name = func.overloadpacket.__name__
        if name in REDUCTIONS and taken and taken[0][1] == torch.int64:
            self.refused.append(f"{func}: reduces 64-bit integers")
        return result

    @staticmethod
    def _shapes(values: Any) -> tuple:
        tensors = (x for x in tree_leaves(values) if isinstance(x, torch.Tensor))
        return tuple((tuple(x.shape), x.dtype) for x in tensors)


def record(first: int, second: int, config: ObjectiveConfig) -> Recorder:
    """Forward and backward of two images with that many boxes."""
    boxes = as_batch(scene_boxes(first), scene_boxes(second, seed=1), count=16)
    outputs = with_grad(scene_outputs(2))
    with Recorder() as recorder:
        objective(outputs, boxes, config).loss.backward()
    return recorder


@pytest.mark.parametrize("dominate", [False, True])
def test_operators_and_shapes_are_the_same_for_any_number_of_boxes(dominate: bool) -> None:
    config = ObjectiveConfig(neg_scale=0.5, foreground_dominate=dominate)
    many = record(16, 9, config)
    assert len(many.calls) > 100
    for first, second in [(0, 0), (1, 0), (3, 16)]:
        assert record(first, second, config).calls == many.calls


def test_no_operator_depends_on_data() -> None:
    assert record(0, 7, ObjectiveConfig()).refused == []


@pytest.mark.parametrize(
    "offend",
    [
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: x.sum().item(),
        lambda x: float(x[0]),
        lambda x: x.long().sum(),
    ],
)
def test_the_recorder_sees_what_is_not_allowed(offend: Any) -> None:
    with Recorder() as recorder:
        offend(torch.tensor([1.0, -1.0, 2.0]))
    assert recorder.refused
