"""Anchors against RetinaNet's definition and torchvision's coder of boxes."""

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder

from fsaf.model.anchors import KINDS, RATIOS, SIZES, decode_deltas, encode_deltas, make_anchors


def test_each_location_has_nine_anchors_of_three_areas_and_three_ratios() -> None:
    anchors_4n = make_anchors([(2, 3), (1, 1)], (8, 16), torch.device("cpu"))
    assert KINDS == 9 and anchors_4n.shape == (4, 9 * 7)
    kind = 0
    for ratio in RATIOS:
        for size in SIZES:
            for row in range(2):
                for column in range(3):
                    x1, y1, x2, y2 = anchors_4n[:, kind * 6 + row * 3 + column].tolist()
                    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((8 * column, 8 * row), abs=1e-5)
                    assert (y2 - y1) / (x2 - x1) == pytest.approx(ratio, rel=1e-5)
                    assert (y2 - y1) * (x2 - x1) == pytest.approx((8 * size) ** 2, rel=1e-5)
            kind += 1
    assert (anchors_4n[2:, 54:] - anchors_4n[:2, 54:]).prod(0)[:3].sqrt().tolist() == pytest.approx(
        [64, 64 * 2 ** (1 / 3), 64 * 2 ** (2 / 3)], rel=1e-5
    )  # of the second level, whose stride is 16


def test_coding_is_torchvisions_and_leads_back() -> None:
    random = torch.Generator().manual_seed(1)
    anchors_4n = make_anchors([(3, 4)], (8,), torch.device("cpu"))
    centre = 40 * torch.rand(2, 2, anchors_4n.shape[1], generator=random)
    half = 2 + 60 * torch.rand(2, 2, anchors_4n.shape[1], generator=random)
    boxes_b4n = torch.cat([centre - half, centre + half], 1)
    coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    deltas_b4n = encode_deltas(boxes_b4n, anchors_4n)
    for boxes_4n, deltas_4n in zip(boxes_b4n, deltas_b4n, strict=True):
        torch.testing.assert_close(deltas_4n.T, coder.encode_single(boxes_4n.T, anchors_4n.T))
    torch.testing.assert_close(decode_deltas(deltas_b4n, anchors_4n), boxes_b4n, rtol=1e-5, atol=1e-4)

    wild_b4n = 5 * torch.randn(2, 4, anchors_4n.shape[1], generator=random)
    for deltas_4n, boxes_4n in zip(wild_b4n, decode_deltas(wild_b4n, anchors_4n), strict=True):
        # torchvision clamps growth only; MMDetection and this package clamp shrinking too.
        limited = torch.cat([deltas_4n[:2], deltas_4n[2:].clamp(min=-coder.bbox_xform_clip)])
        torch.testing.assert_close(
            boxes_4n.T, coder.decode_single(limited.T, anchors_4n.T), rtol=1e-5, atol=1e-3
        )
