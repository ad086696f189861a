"""Augmentation: boxes follow their pixels, batch shapes do not change, the seed determines everything."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsaf.config import DataConfig
from fsaf.data.augment import (
    MIN_VISIBLE,
    Change,
    Color,
    Region,
    change_boxes,
    change_color,
    draw_change,
    unchanged,
)
from fsaf.data.transforms import resize

DATA = DataConfig(flip=0.5, flip_vertical=0.5, scale=(0.5, 2.0), color=0.5)
SIZE = (64, 96)


def boxes_of(*boxes: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return xyxy, np.arange(len(xyxy)), np.zeros(len(xyxy), bool)


@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(1, 128), st.integers(1, 128)),
    st.tuples(st.floats(0.1, 3), st.floats(0, 3)),
)
def test_regions_lie_in_the_image_and_fit_the_batch(
    seed: int, original: tuple[int, int], size: tuple[int, int], scale: tuple[float, float]
) -> None:
    data = replace(DATA, scale=(scale[0], scale[0] + scale[1]))
    shape = (128, 128)
    change = draw_change(np.random.default_rng(seed), original, size, shape, data)
    top, left, height, width = change.region
    assert top >= 0 and left >= 0 and height >= 1 and width >= 1
    assert top + height <= original[0] and left + width <= original[1]
    assert all(1 <= side <= limit for side, limit in zip(change.size, shape, strict=True))


def test_scales_reach_from_end_to_end_and_keep_the_ratio() -> None:
    data = replace(DATA, scale=(0.5, 1.5))
    heights, factors = [], []
    for seed in range(200):
        change = draw_change(np.random.default_rng(seed), (480, 640), (240, 320), (320, 320), data)
        across = change.size[0] / change.region.height, change.size[1] / change.region.width
        assert across[0] == pytest.approx(across[1], rel=0.02)
        heights.append(change.size[0])
        factors.append(across[0] / 0.5)
    assert min(factors) == pytest.approx(0.5, abs=0.05) and max(factors) == pytest.approx(1.5, abs=0.05)
    assert max(heights) == 320  # taller than without augmentation, up to the batch shape


def test_an_image_without_fixed_shape_is_cut_to_its_size() -> None:
    data = replace(DATA, scale=(1.5, 2.0))
    change = draw_change(np.random.default_rng(0), (480, 640), (240, 320), None, data)
    assert change.size == (240, 320) and change.region.height < 330


def test_mirroring_alone_is_drawn_as_before_and_takes_all_of_the_image() -> None:
    plain = replace(DATA, scale=(1.0, 1.0), color=0.0)
    for seed in range(20):
        change = draw_change(np.random.default_rng(seed), (480, 640), (240, 320), (256, 320), plain)
        both = draw_change(np.random.default_rng(seed), (480, 640), (240, 320), (256, 320), DATA)
        assert change == unchanged((480, 640), (240, 320))._replace(mirror=both.mirror)


@given(st.integers(0, 10**6))
def test_boxes_stay_on_their_pixels(seed: int) -> None:
    """Look for a painted rectangle in the changed image."""
    rng = np.random.default_rng(seed)
    height, width = int(rng.integers(60, 200)), int(rng.integers(60, 200))
    y, x = int(rng.integers(0, height - 30)), int(rng.integers(0, width - 30))
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[:, y : y + 30, x : x + 30] = 255
    change = draw_change(rng, (height, width), (height, width), (200, 200), replace(DATA, color=0.0))
    top, left, part_h, part_w = change.region
    changed = resize(image[:, top : top + part_h, left : left + part_w], change.size)
    changed = changed.flip([a for a, m in zip((2, 1), change.mirror, strict=True) if m])
    found, _, _ = change_boxes(*boxes_of((x, y, x + 30, y + 30)), (height, width), change)
    bright = (changed[0] > 127).nonzero()
    if len(bright) == 0:
        assert len(found) == 0 or (found[0, 2:] - found[0, :2]).min() < 1
        return
    seen = [*bright.min(0).values.flip(0).tolist(), *(bright.max(0).values + 1).flip(0).tolist()]
    np.testing.assert_allclose(found[0], seen, atol=1.1)


def test_a_cut_leaves_what_is_inside_and_tells_what_is_hardly_seen() -> None:
    change = Change(Region(0, 100, 100, 100), (50, 50))
    boxes, labels, crowd = boxes_of(
        (120, 10, 160, 50),  # inside
        (60, 0, 140, 40),  # half
        (10, 0, 110, 40),  # a tenth
        (0, 0, 90, 90),  # outside
    )
    found, found_labels, found_crowd = change_boxes(boxes, labels, crowd, (100, 200), change)
    np.testing.assert_allclose(found, [[10, 5, 30, 25], [0, 0, 20, 20], [0, 0, 5, 20]])
    assert found_labels.tolist() == [0, 1, 2]
    assert found_crowd.tolist() == [False, False, True] and MIN_VISIBLE == 0.25


def test_without_a_cut_every_box_stays_as_it_is() -> None:
    """Boxes without area or outside the image are kept too; another part of the code drops them."""
    boxes, labels, crowd = boxes_of((-5, 10, 300, 50), (20, 20, 20, 40), (5, 5, 10, 10))
    found, found_labels, found_crowd = change_boxes(
        boxes, labels, crowd, (100, 200), unchanged((100, 200), (50, 100))
    )
    np.testing.assert_array_equal(found, boxes / 2)
    assert found_labels.tolist() == [0, 1, 2] and not found_crowd.any()


def test_colours_change_as_told() -> None:
    image = torch.randint(0, 256, (3, 8, 9), dtype=torch.uint8)
    assert torch.equal(change_color(image, Color(1, 1, 1, 0)), image)
    assert change_color(image, Color(0.5, 1, 1, 0)).float().mean() < 0.52 * image.float().mean()
    grey = change_color(image, Color(1, 1, 0, 0))
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[1], grey[2])
    turned = change_color(image, Color(1, 1, 1, 1 / 3)).float()
    np.testing.assert_allclose(turned[[1, 2, 0]], image.float(), atol=3)  # red is green, green is blue


def test_colours_are_drawn_within_their_limits() -> None:
    drawn = [
        draw_change(np.random.default_rng(seed), (64, 96), SIZE, SIZE, replace(DATA, color=0.4)).color
        for seed in range(300)
    ]
    factors = np.array(drawn)
    low, high = factors.min(0), factors.max(0)
    np.testing.assert_allclose(low, [0.6, 0.6, 0.6, -0.04], atol=0.02)
    np.testing.assert_allclose(high, [1.4, 1.4, 1.4, 0.04], atol=0.02)
