"""The head's outputs before training, their types, and the layers that the branches share."""

import pytest
import torch
from torch import nn

from fsaf.model.head import Head
from fsaf.model.outputs import RawOutputs


@pytest.mark.parametrize("norm", ["none", "group"])
@pytest.mark.parametrize("convs", [0, 2, 4])
def test_starts_near_score_001_and_distance_025(norm: str, convs: int) -> None:
    head = Head(64, convs, norm, 7)
    with torch.no_grad():
        logits, distances = head([torch.randn(2, 64, 20, 30), torch.randn(2, 64, 10, 15)]).free
    assert [tuple(x.shape) for x in logits] == [(2, 7, 20, 30), (2, 7, 10, 15)]
    assert [tuple(x.shape) for x in distances] == [(2, 4, 20, 30), (2, 4, 10, 15)]
    # The output convolutions' random weights move each channel a little.
    assert all(0.007 < x.sigmoid().median() < 0.014 for x in logits)
    assert all(0.15 < x.median() < 0.35 and (x >= 0).all() for x in distances)


@pytest.mark.parametrize("norm", ["none", "group"])
@pytest.mark.parametrize("convs", [0, 4])
def test_starts_exactly_there_where_features_are_zero(norm: str, convs: int) -> None:
    logits, distances = Head(32, convs, norm, 3)([torch.zeros(1, 32, 4, 4)]).free
    torch.testing.assert_close(logits[0].sigmoid(), torch.full((1, 3, 4, 4), 0.01))
    torch.testing.assert_close(distances[0], torch.full((1, 4, 4, 4), 0.25))


def test_distances_are_never_negative() -> None:
    head = Head(32, 1, "none", 3)
    nn.init.constant_(head.distances.bias, -1.0)
    _, distances = head([torch.randn(1, 32, 4, 4)]).free
    assert (distances[0] == 0).all()


def test_towers_have_as_many_convolutions_as_asked() -> None:
    head = Head(32, 3, "group", 5)
    for tower in (head.class_tower, head.box_tower):
        assert [type(m) for m in tower] == [nn.Conv2d, nn.GroupNorm, nn.ReLU] * 3
        assert all(m.bias is None for m in tower if isinstance(m, nn.Conv2d))
    assert all(m.bias is not None for m in Head(32, 3, "none", 5).class_tower if isinstance(m, nn.Conv2d))


def test_separable_towers_are_a_product_of_two_convolutions() -> None:
    head = Head(32, 2, "none", 5, separable=True)
    assert [type(m) for m in head.box_tower] == [nn.Conv2d, nn.Conv2d, nn.ReLU] * 2
    spatial, mixing = head.class_tower[:2]
    x = torch.randn(1, 32, 6, 6)
    product = mixing.weight * spatial.weight.view(1, 32, 3, 3)  # (32, 32, 1, 1) x (1, 32, 3, 3)
    want = nn.functional.conv2d(x, product, mixing.bias, padding=1)
    torch.testing.assert_close(mixing(spatial(x)), want)
    plain = sum(m.weight.numel() for m in Head(32, 2, "none", 5).box_tower if isinstance(m, nn.Conv2d))
    small = sum(m.weight.numel() for m in head.box_tower if isinstance(m, nn.Conv2d))
    assert (plain, small) == (2 * 32 * 32 * 9, 2 * 32 * (9 + 32))


@pytest.mark.parametrize("norm", ["none", "group"])
def test_signals_do_not_fade_in_separable_towers(norm: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 64, 16, 16)
    with torch.no_grad():
        deep = Head(64, 4, norm, 5, separable=True).class_tower(x)
    assert 0.3 < float(deep.std()) < 3


def test_levels_share_their_weights() -> None:
    head = Head(32, 2, "group", 5)
    x = torch.randn(1, 32, 6, 6)
    logits, distances = head([x, x]).free
    assert torch.equal(logits[0], logits[1]) and torch.equal(distances[0], distances[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_outputs_are_float32_under_autocast(dtype: torch.dtype) -> None:
    head = Head(32, 1, "none", 5)
    inner = []
    head.classes.register_forward_hook(lambda module, inputs, output: inner.append(output.dtype))
    with torch.autocast("cpu", dtype=dtype):
        logits, distances = head([torch.randn(1, 32, 4, 4)]).free
    assert inner == [dtype]
    assert logits[0].dtype == distances[0].dtype == torch.float32


def test_both_branches_share_the_towers() -> None:
    both = Head(32, 2, "none", 3, ("anchor_free", "anchor_based"))
    levels = [torch.randn(2, 32, 6, 8), torch.randn(2, 32, 3, 4)]
    outputs = both(levels)
    for part, channels in zip([*outputs.free, *outputs.anchors], (3, 4, 27, 36), strict=True):
        assert [tuple(x.shape) for x in part] == [(2, channels, 6, 8), (2, channels, 3, 4)]
    assert all(0.005 < x.sigmoid().mean() < 0.02 for x in outputs.anchors.logits)

    free, based = Head(32, 2, "none", 3), Head(32, 2, "none", 3, ("anchor_based",))
    for alone, expected in (
        (free, RawOutputs(free=outputs.free)),
        (based, RawOutputs(anchors=outputs.anchors)),
    ):
        alone.load_state_dict({name: both.state_dict()[name] for name in alone.state_dict()})
        found = alone(levels)
        assert [part is None for part in found] == [part is None for part in expected]
        for mine, theirs in zip(found.tensors(), expected.tensors(), strict=True):
            torch.testing.assert_close(mine, theirs)
