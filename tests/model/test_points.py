"""Locations and the coding of boxes as distances."""

import pytest
import torch

from fsaf.model.points import STRIDES, Points, decode_boxes, make_points

CPU = torch.device("cpu")


def test_locations_lie_at_multiples_of_the_stride_row_by_row() -> None:
    points = make_points([(2, 3), (1, 2)], (8, 16), CPU)
    assert points.x.tolist() == [0, 8, 16, 0, 8, 16, 0, 16]
    assert points.y.tolist() == [0, 0, 0, 8, 8, 8, 0, 0]
    assert points.stride.tolist() == [8] * 6 + [16] * 2
    assert points.level_shapes == [(2, 3), (1, 2)]
    assert points.level_sizes == [6, 2]
    assert points.x.dtype == points.y.dtype == points.stride.dtype == torch.float32


def test_five_levels_have_strides_8_to_128() -> None:
    assert STRIDES == (8, 16, 32, 64, 128)
    with pytest.raises(ValueError, match="zip"):
        make_points([(4, 4)] * 4, STRIDES, CPU)


def encode(box: list[float], x: float, y: float, stride: float) -> list[float]:
    """Return top, bottom, left, right: distances of a box's edges from (x, y) in units of four strides."""
    x1, y1, x2, y2 = box
    return [
        (y - y1) / (4 * stride),
        (y2 - y) / (4 * stride),
        (x - x1) / (4 * stride),
        (x2 - x) / (4 * stride),
    ]


def test_decoding_is_the_inverse_of_encoding() -> None:
    points = make_points([(4, 6), (2, 3)], (8, 16), CPU)
    boxes = torch.rand(2, len(points.x), 4) * 100
    boxes[..., 2:] += 100
    distances = torch.tensor(
        [
            [
                encode(box, x, y, s)
                for box, x, y, s in zip(image, *(p.tolist() for p in points[:3]), strict=True)
            ]
            for image in boxes.tolist()
        ]
    )
    found = decode_boxes(distances.mT, points)
    torch.testing.assert_close(found, boxes.mT, rtol=0, atol=1e-4)


def test_decoding_by_hand() -> None:
    points = Points(torch.tensor([40.0]), torch.tensor([24.0]), torch.tensor([8.0]), [(1, 1)])
    distances = torch.tensor([0.5, 1.0, 0.25, 2.0])[None, :, None]
    assert decode_boxes(distances, points).flatten().tolist() == [40 - 8, 24 - 16, 40 + 64, 24 + 32]
