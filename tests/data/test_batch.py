"""Boxes of a batch are padded or cut to the same number."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsaf.data.batch import Batch, Boxes, pad_boxes

Image = list[tuple[tuple[float, float, float, float], int, bool]]
"""One box of an image: corners, label, crowd."""

box = st.tuples(
    st.tuples(*(st.integers(0, 200) for _ in range(2)), *(st.integers(201, 400) for _ in range(2))),
    st.integers(0, 79),
    st.booleans(),
)


def pad(images: list[Image], count: int, sizes: list[tuple[int, int]] | None = None) -> tuple[Boxes, int]:
    return pad_boxes(
        [torch.tensor([b[0] for b in image], dtype=torch.float32).reshape(-1, 4) for image in images],
        [torch.tensor([b[1] for b in image], dtype=torch.int64) for image in images],
        [torch.tensor([b[2] for b in image], dtype=torch.bool) for image in images],
        sizes or [(480, 640)] * len(images),
        count,
    )


def area(corners: tuple[float, ...]) -> float:
    x1, y1, x2, y2 = corners
    return (x2 - x1) * (y2 - y1)


@given(images=st.lists(st.lists(box, max_size=9), min_size=1, max_size=3), count=st.integers(1, 10))
def test_every_image_keeps_its_largest_real_boxes_in_order(images: list[Image], count: int) -> None:
    boxes, cut = pad(images, count)
    assert cut == sum(max(len(image) - count, 0) for image in images)
    assert boxes.xyxy.shape == (len(images), count, 4)
    for i, image in enumerate(images):
        kept = min(len(image), count)
        assert boxes.valid[i].tolist() == [True] * kept + [False] * (count - kept)
        rows = list(
            zip(
                map(tuple, boxes.xyxy[i, :kept].tolist()),
                boxes.labels[i, :kept].tolist(),
                boxes.crowd[i, :kept].tolist(),
                strict=True,
            )
        )
        # In the order of the file.
        rest = iter(image)
        assert all(any(row == other for other in rest) for row in rows)
        # Boxes are kept before crowd regions, large ones before small ones.
        real = sorted((area(b[0]) for b in image if not b[2]), reverse=True)
        assert sum(not row[2] for row in rows) == min(len(real), count)
        assert sorted((area(row[0]) for row in rows if not row[2]), reverse=True) == real[:count]
        # Padding is zero.
        assert not boxes.xyxy[i, kept:].any() and not boxes.labels[i, kept:].any()
        assert not boxes.crowd[i, kept:].any()


def test_a_cut_by_hand() -> None:
    small, large, crowd = (0, 0, 10, 10), (0, 0, 50, 50), (0, 0, 300, 300)
    boxes, cut = pad([[(crowd, 0, True), (small, 1, False), (large, 2, False)]], 2)
    assert cut == 1
    assert boxes.labels.tolist() == [[1, 2]]
    assert boxes.xyxy.tolist() == [[list(map(float, small)), list(map(float, large))]]
    boxes, cut = pad([[(crowd, 0, True), (small, 1, False), (large, 2, False)]], 1)
    assert cut == 2 and boxes.labels.tolist() == [[2]]


@pytest.mark.parametrize("images", [[[]], [[], [((1, 2, 3, 4), 5, False)]]])
def test_types_and_sizes(images: list[Image]) -> None:
    sizes = [(30 + i, 40 + i) for i in range(len(images))]
    boxes, cut = pad(images, 7, sizes)
    assert cut == 0
    assert [x.dtype for x in boxes] == [torch.float32, torch.int64, torch.bool, torch.bool, torch.int64]
    assert [tuple(x.shape[1:]) for x in boxes] == [(7, 4), (7,), (7,), (7,), (2,)]
    assert boxes.sizes.tolist() == [list(size) for size in sizes]


def test_what_goes_in_is_not_changed() -> None:
    xyxy, labels = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([5])
    boxes, _ = pad_boxes([xyxy], [labels], [torch.tensor([False])], [(8, 8)], 2)
    boxes.xyxy.zero_()
    assert xyxy.tolist() == [[1.0, 2.0, 3.0, 4.0]]


def test_boxes_move_to_a_device() -> None:
    boxes, _ = pad([[((1, 2, 3, 4), 5, False)]], 2)
    moved = boxes.to(torch.device("meta"))
    assert isinstance(moved, Boxes) and {x.device.type for x in moved} == {"meta"}


@pytest.mark.gpu
def test_a_batch_is_pinned_as_a_whole() -> None:
    boxes, _ = pad([[((1, 2, 3, 4), 5, False)]], 2)
    batch = Batch(images=torch.zeros(1, 3, 4, 4), boxes=boxes, ids=[1], original_sizes=[(4, 4)]).pin_memory()
    assert batch.images.is_pinned() and all(x.is_pinned() for x in batch.boxes)
