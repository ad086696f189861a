"""The levels that can learn a box are those on which it gets locations when assigned alone."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsaf.config import ObjectiveConfig
from fsaf.data.batch import Boxes
from fsaf.model.points import STRIDES
from fsaf.objective.assign import assign
from fsaf.objective.reach import reachable_levels

HEIGHT, WIDTH = 160, 256
SHAPES = [(-(-HEIGHT // stride), -(-WIDTH // stride)) for stride in STRIDES]


def by_assignment(box: list[float], size: tuple[int, int], config: ObjectiveConfig) -> list[bool]:
    boxes = Boxes(
        torch.tensor([[box]]),
        torch.zeros(1, 1, dtype=torch.int64),
        torch.ones(1, 1, dtype=torch.bool),
        torch.zeros(1, 1, dtype=torch.bool),
        torch.tensor([size]),
    )
    positive = assign(SHAPES, boxes, 1, config).positive_bp[0]
    return [bool(part.any()) for part in positive.split([h * w for h, w in SHAPES])]


# Quarters of pixels, and sides down to very thin ones: where the rule changes.
corner = st.integers(0, 4 * HEIGHT).map(lambda value: value / 4)
side = st.integers(1, 400).map(lambda value: value / 4) | st.floats(0.015625, 3, width=32)


@given(x=corner, y=corner, w=side, h=side, scale=st.sampled_from([0.2, 0.5, 1.0]), size=st.data())
def test_a_level_reaches_a_box_where_assignment_gives_it_a_location(
    x: float, y: float, w: float, h: float, scale: float, size: st.DataObject
) -> None:
    height = size.draw(st.integers(1, HEIGHT))
    width = size.draw(st.integers(1, WIDTH))
    x, y = min(x, width), min(y, height)
    box = torch.tensor([x, y, min(x + w, width), min(y + h, height)]).tolist()
    config = ObjectiveConfig(pos_scale=scale, neg_scale=scale)
    found = reachable_levels(np.array([box], np.float32), np.array([(height, width)]), config)
    assert found[0].tolist() == by_assignment(box, (height, width), config)


def test_by_hand() -> None:
    boxes = np.array(
        [
            [10.0, 10, 14, 14],  # between the locations 8 and 16: none is inside
            [
                14.0,
                14,
                18.5,
                18.5,
            ],  # holds (16, 16); the core, 0.9 x 0.9, is 1.3% of P3's square, 0.3% of P4's
            [14.0, 14, 18, 17],  # the core, 0.8 x 0.6, is 0.75% of P3's square
            [0.0, 0, 128, 128],
        ],
        np.float32,
    )
    found = reachable_levels(boxes, np.array([[128, 128]] * 4), ObjectiveConfig())
    assert found.tolist() == [
        [False] * 5,
        [True, False, False, False, False],
        [False] * 5,
        [True, True, True, True, False],
    ]
