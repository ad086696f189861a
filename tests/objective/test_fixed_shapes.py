"""Operators of the objective and their shapes do not depend on the data: one graph serves every batch."""

import pytest

from fsaf.config import ObjectiveConfig
from fsaf.objective.objective import objective
from fsaf.testing import Recorder, first_difference
from objective.scenes import as_batch, scene_boxes, scene_outputs, with_grad


def record(first: int, second: int, config: ObjectiveConfig) -> Recorder:
    """Record the forward and backward pass for two images with that many boxes."""
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
        assert first_difference(record(first, second, config), many) is None


def test_no_operator_depends_on_data() -> None:
    assert record(0, 7, ObjectiveConfig()).report() == ""
