"""Shapes and arithmetic of the feature pyramid."""

import math

import pytest
import torch
from torch import Tensor, nn

from fsaf.model.pyramid import Pyramid


@pytest.mark.parametrize("size", [(256, 256), (97, 129), (33, 640), (1, 1), (800, 1333)])
def test_each_level_halves_the_one_before_rounding_up(size: tuple[int, int]) -> None:
    pyramid = Pyramid((3, 5, 7), 4)
    shapes = [tuple(math.ceil(side / stride) for side in size) for stride in (8, 16, 32, 64, 128)]
    features = [torch.randn(2, c, *shape) for c, shape in zip((3, 5, 7), shapes, strict=False)]
    levels = pyramid(features)
    assert [tuple(x.shape) for x in levels] == [(2, 4, *shape) for shape in shapes]


def passes_through(conv: nn.Module, factor: float = 1.0) -> None:
    """Turn a convolution into the identity times ``factor``."""
    assert isinstance(conv, nn.Conv2d)
    nn.init.dirac_(conv.weight)
    with torch.no_grad():
        conv.weight.mul_(factor)
        conv.bias.zero_()


@pytest.fixture
def plain_pyramid() -> Pyramid:
    pyramid = Pyramid((2, 2, 2), 2)
    for conv in [*pyramid.lateral, *pyramid.smooth, pyramid.p6, pyramid.p7]:
        passes_through(conv)
    return pyramid


def nearest(x: Tensor, height: int, width: int) -> Tensor:
    """Upsample to the nearest neighbour, index by index."""
    rows = [i * x.shape[2] // height for i in range(height)]
    columns = [j * x.shape[3] // width for j in range(width)]
    return x[:, :, rows][:, :, :, columns]


def test_finer_levels_add_the_coarser_one_enlarged(plain_pyramid: Pyramid) -> None:
    c3, c4, c5 = (torch.randn(1, 2, *shape) for shape in [(13, 17), (7, 9), (4, 5)])
    p3, p4, p5, *_ = plain_pyramid([c3, c4, c5])
    torch.testing.assert_close(p5, c5)
    torch.testing.assert_close(p4, c4 + nearest(c5, 7, 9))
    torch.testing.assert_close(p3, c3 + nearest(c4 + nearest(c5, 7, 9), 13, 17))


def test_p6_starts_from_c5_and_no_relu_stands_before_p7(plain_pyramid: Pyramid) -> None:
    passes_through(plain_pyramid.p6, -1.0)
    passes_through(plain_pyramid.smooth[2], 0.0)
    c3, c4, c5 = (torch.rand(1, 2, *shape) + 1 for shape in [(16, 16), (8, 8), (4, 4)])
    *_, p6, p7 = plain_pyramid([c3, c4, c5])
    torch.testing.assert_close(p6, -c5[:, :, ::2, ::2])
    torch.testing.assert_close(p7, -c5[:, :, ::4, ::4])


def test_separable_convolutions_keep_shapes_and_size_of_signals() -> None:
    torch.manual_seed(0)
    features = [torch.randn(2, c, *shape) for c, shape in ((40, (32, 40)), (112, (16, 20)), (320, (8, 10)))]
    plain, small = (Pyramid((40, 112, 320), 64, separable) for separable in (False, True))
    with torch.no_grad():
        both = list(zip(plain(features), small(features), strict=True))
    assert all(found.shape == expected.shape for expected, found in both)
    assert all(0.2 < float(found.std() / expected.std()) < 5 for expected, found in both)
    spatial, mixing = small.p6
    assert (spatial.groups, spatial.stride, mixing.kernel_size) == (320, (2, 2), (1, 1))
    weights = [
        sum(x.weight.numel() for x in each.smooth.modules() if hasattr(x, "weight"))
        for each in (plain, small)
    ]
    assert weights == [3 * 64 * 64 * 9, 3 * 64 * (9 + 64)]
