"""Geometry of boxes, against torchvision's and against painted pixels."""

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from fsaf.boxes import area, clip_boxes, intersection, iou, mirror_boxes, scale_boxes, shared_length


def random_boxes(count: int, seed: int) -> torch.Tensor:
    first, second = 50 * torch.rand(2, count, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], 1)


def test_area_and_iou_are_torchvisions() -> None:
    a, b = random_boxes(40, 0), random_boxes(30, 1)
    torch.testing.assert_close(area(a.unbind(1)), torchvision.ops.box_area(a))
    expected = torchvision.ops.box_iou(a, b)
    assert (expected == 0).any() and (expected > 0.3).any()
    torch.testing.assert_close(iou(a[..., None].unbind(1), b.unbind(1)), expected)


def test_arrays_and_numbers_give_what_tensors_give() -> None:
    a, b = random_boxes(40, 0), random_boxes(40, 1)
    shared = intersection(a.unbind(1), b.unbind(1))
    np.testing.assert_array_equal(intersection(a.numpy().T, b.numpy().T), shared.numpy())
    np.testing.assert_array_equal(area(a.numpy().T), area(a.unbind(1)).numpy())
    numbers = [intersection(one, other) for one, other in zip(a.tolist(), b.tolist(), strict=True)]
    np.testing.assert_allclose(numbers, shared.numpy(), rtol=1e-5)
    assert [value == 0 for value in numbers] == (shared == 0).tolist()


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [((0, 4), (1, 3), 2), ((0, 4), (3, 9), 1), ((0, 4), (4, 9), 0), ((0, 4), (6, 9), 0)],
)
def test_the_length_that_intervals_share(one: tuple[int, int], other: tuple[int, int], shared: int) -> None:
    for convert in (int, np.array, torch.tensor):
        assert shared_length(*map(convert, (*one, *other))) == shared
        assert shared_length(*map(convert, (*other, *one))) == shared


def test_scaling_keeps_the_centre() -> None:
    assert scale_boxes((10.0, 20.0, 30.0, 60.0), 0.5) == (15, 30, 25, 50)
    boxes = random_boxes(20, 0)
    torch.testing.assert_close(torch.stack(scale_boxes(boxes.unbind(1), 1.0), 1), boxes)


def test_clipping_to_each_image() -> None:
    boxes = torch.tensor([[-5.0, -6.0, 300.0, 400.0], [1.0, 2.0, 3.0, 4.0]]).T
    clipped = clip_boxes(boxes.expand(2, 4, 2), torch.tensor([[50, 70], [3, 2]]))
    assert clipped[0].T.tolist() == [[0, 0, 70, 50], [1, 2, 3, 4]]
    assert clipped[1].T.tolist() == [[0, 0, 2, 3], [1, 2, 2, 3]]


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    corners=st.tuples(*[st.integers(0, 11)] * 4),
    horizontal=st.booleans(),
    vertical=st.booleans(),
)
def test_a_mirrored_box_holds_the_same_pixels(
    height: int, width: int, corners: tuple[int, int, int, int], horizontal: bool, vertical: bool
) -> None:
    x1, x2 = sorted((corners[0] % width, corners[1] % width))
    y1, y2 = sorted((corners[2] % height, corners[3] % height))
    x2, y2 = x2 + 1, y2 + 1
    image = np.zeros((height, width), np.uint8)
    image[y1:y2, x1:x2] = 200
    boxes = np.array([[x1, y1, x2, y2]], np.float32)
    moved = mirror_boxes(boxes, (height, width), horizontal, vertical)
    a1, b1, a2, b2 = (int(value) for value in moved[0])
    painted = np.zeros_like(image)
    painted[b1:b2, a1:a2] = 200
    mirrored = image[:: -1 if vertical else 1, :: -1 if horizontal else 1]
    assert (mirrored == painted).all()
    assert (mirror_boxes(moved, (height, width), horizontal, vertical) == boxes).all()


def test_an_image_without_boxes_is_mirrored() -> None:
    assert mirror_boxes(np.zeros((0, 4), np.float32), (6, 8), True, True).shape == (0, 4)
