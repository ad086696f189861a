"""The vectorised objective equals a plain loop version on arbitrary boxes and settings."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from fsaf.config import ObjectiveConfig
from fsaf.data.batch import pad_boxes
from fsaf.model.outputs import FreeOutputs, RawOutputs
from fsaf.objective.assign import assign
from fsaf.objective.objective import objective
from objective.reference import STRIDES, Box, reference

NUM_CLASSES = 3
HEIGHT, WIDTH = 96, 160

eighths = st.integers(-8 * 24, 8 * (WIDTH + 24)).map(lambda n: n / 8)
"""Coordinates that float32 represents exactly, some of them outside the image."""


@st.composite
def box(draw: st.DrawFn) -> Box:
    kind = draw(st.sampled_from(["any", "tiny", "huge"]))
    x1, y1 = draw(eighths), draw(eighths)
    side = {"any": (8, 8 * 100), "tiny": (1, 8 * 6), "huge": (8 * 80, 8 * 200)}[kind]
    w, h = (draw(st.integers(*side)) / 8 for _ in range(2))
    return Box(
        xyxy=(x1, y1, x1 + w, y1 + h),
        label=draw(st.integers(0, NUM_CLASSES - 1)),
        crowd=draw(st.sampled_from([False] * 5 + [True])),
    )


@st.composite
def image(draw: st.DrawFn) -> list[Box]:
    """Draw up to 8 boxes; some lie in the one before, some have its class, some repeat it."""
    boxes: list[Box] = []
    for new in draw(st.lists(box(), max_size=8)):
        how = draw(st.sampled_from(["free", "free", "nested", "same class", "twice"])) if boxes else "free"
        if how == "nested":
            x1, y1, x2, y2 = boxes[-1].xyxy
            w, h = math.floor((x2 - x1) * 2) / 8, math.floor((y2 - y1) * 2) / 8
            if w > 0 and h > 0:
                new.xyxy = (x1 + w, y1 + h, x1 + 3 * w, y1 + 3 * h)
        elif how == "same class":
            new.label = boxes[-1].label
        elif how == "twice":
            new.xyxy = boxes[-1].xyxy
        boxes.append(new)
    return boxes


@st.composite
def setting(draw: st.DrawFn) -> ObjectiveConfig:
    pos, neg = sorted(draw(st.sampled_from([0.1, 0.2, 0.2, 0.5, 0.7, 1.0])) for _ in range(2))
    return ObjectiveConfig(
        pos_scale=pos,
        neg_scale=neg,
        foreground_dominate=draw(st.booleans()),
        alpha=draw(st.sampled_from([0.25, 0.5])),
        gamma=draw(st.sampled_from([0.0, 1.0, 2.0])),
    )


def outputs(seed: int, batch: int) -> FreeOutputs:
    """Draw random logits, and distances that float32 decodes exactly, so that both sides see equal boxes."""
    random = torch.Generator().manual_seed(seed)
    shapes = [(math.ceil(HEIGHT / s), math.ceil(WIDTH / s)) for s in STRIDES]
    return FreeOutputs(
        [torch.randn(batch, NUM_CLASSES, *shape, generator=random) * 2 - 1 for shape in shapes],
        [torch.randint(1, 96, (batch, 4, *shape), generator=random) / 32 for shape in shapes],
    )


@given(
    images=st.lists(image(), min_size=1, max_size=2),
    sizes=st.lists(st.tuples(st.integers(1, HEIGHT), st.integers(1, WIDTH)), min_size=2, max_size=2),
    config=setting(),
    seed=st.integers(0, 2**16),
)
def test_equals_the_loop_version(
    images: list[list[Box]], sizes: list[tuple[int, int]], config: ObjectiveConfig, seed: int
) -> None:
    sizes = sizes[: len(images)]
    raw = outputs(seed, len(images))
    expected = reference(
        [x.double().tolist() for x in raw.logits],
        [x.double().tolist() for x in raw.distances],
        images,
        sizes,
        config,
    )
    # Closer to a tie, float32 and float64 may decide differently.
    assume(expected.margin > 1e-5)

    boxes, cut = pad_boxes(
        [torch.tensor([b.xyxy for b in some]).reshape(-1, 4) for some in images],
        [torch.tensor([b.label for b in some], dtype=torch.int64) for some in images],
        [torch.tensor([b.crowd for b in some], dtype=torch.bool) for some in images],
        sizes,
        8,
    )
    assert cut == 0
    shapes = [(x.shape[-2], x.shape[-1]) for x in raw.logits]
    found = assign(shapes, boxes, NUM_CLASSES, config)
    box_bp = torch.where(found.positive_bp, found.box_bp, -1)
    assert box_bp.flatten().tolist() == [-1 if at.box is None else at.box for at in expected.locations]
    counts_cp = found.counts_bcp.transpose(1, 2).flatten(0, 1)
    assert counts_cp.tolist() == [
        [c not in at.ignored for c in range(NUM_CLASSES)] for at in expected.locations
    ]
    assert found.negative_bp.flatten().tolist() == [at.background for at in expected.locations]

    terms = objective(RawOutputs(raw), boxes, config)
    levels = {
        (i, g): level
        for i, row in enumerate(terms.level_bg.tolist())
        for g, level in enumerate(row)
        if level >= 0
    }
    assert levels == expected.levels
    # Rounding of float32 for logits up to 9: half a unit in their last place.
    assert terms.loss_cls_l.tolist() == pytest.approx(expected.loss_cls, rel=1e-5, abs=5e-7)
    assert terms.loss_box_l.tolist() == pytest.approx(expected.loss_box, rel=1e-5, abs=5e-7)
    assert terms.statistics.num_pos.item() == pytest.approx(expected.num_pos)
