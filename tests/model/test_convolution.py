"""3x3 convolutions on a CPU: results and gradients are those of ``nn.Conv2d``."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fsaf.config import ModelConfig
from fsaf.device import has_winograd
from fsaf.model import convolution
from fsaf.model.convolution import MIN_WORK, Conv3x3, speed_up
from fsaf.model.detector import FSAF

winograd = pytest.mark.skipif(not has_winograd(torch.device("cpu")), reason="PyTorch came without NNPACK")

LARGE, SMALL = (80, 81), (7, 5)
assert 32 * LARGE[0] * LARGE[1] >= MIN_WORK > 32 * SMALL[0] * SMALL[1]


def pair(
    stride: int = 1, bias: bool = True, channels: tuple[int, int] = (32, 40)
) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A plain convolution and one of ours with the same weights."""
    plain = nn.Conv2d(*channels, 3, stride=stride, padding=1, bias=bias)
    ours = nn.Sequential(copy.deepcopy(plain))
    speed_up(ours)
    assert type(ours[0]) is Conv3x3
    return plain, ours[0]  # type: ignore[return-value]


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    found, expected = found.detach().double(), expected.detach().double()
    assert float((found - expected).abs().max()) <= 2e-5 * float(expected.abs().max())


@pytest.mark.parametrize("size", [LARGE, SMALL, (1, 1)], ids=["large", "small", "one"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch", [1, 3])
def test_results_and_gradients(
    size: tuple[int, int], stride: int, bias: bool, layout: torch.memory_format, batch: int
) -> None:
    plain, ours = pair(stride, bias)
    x = torch.randn(batch, 32, *size).contiguous(memory_format=layout)
    ours.to(memory_format=layout)  # type: ignore[call-overload]
    mine, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    found, expected = ours(mine), plain.double()(exact)
    close(found, expected)
    weights = torch.randn_like(found)
    (found * weights).sum().backward()
    (expected * weights.double()).sum().backward()
    pairs = [(mine, exact), *zip(ours.parameters(), plain.parameters(), strict=True)]
    for one, other in pairs:
        assert one.grad is not None and other.grad is not None
        close(one.grad, other.grad)


@winograd
def test_large_maps_go_the_fast_way_and_small_ones_pytorchs(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def noting(x: Tensor, *rest: Any) -> Tensor:
        sizes.append(tuple(x.shape[2:]))
        return convolve(x, *rest)

    convolve = convolution._convolve
    monkeypatch.setattr(convolution, "_convolve", noting)
    _, ours = pair()
    for size in (LARGE, SMALL):
        ours(torch.randn(1, 32, *size))
    assert sizes == [LARGE]


@pytest.mark.parametrize("frozen", ["weights", "input"])
def test_only_wanted_gradients_are_computed(frozen: str) -> None:
    _, ours = pair()
    x = torch.randn(1, 32, *LARGE, requires_grad=frozen != "input")
    ours.requires_grad_(frozen != "weights")
    ours(x).sum().backward()
    assert (x.grad is None) is (frozen == "input")
    assert all((weight.grad is None) is (frozen == "weights") for weight in ours.parameters())


def test_autocast_is_obeyed() -> None:
    _, ours = pair()
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(torch.randn(1, 32, *LARGE)).dtype is torch.bfloat16


def test_no_image_at_all() -> None:
    plain, ours = pair()
    assert ours(torch.zeros(0, 32, *LARGE)).shape == plain(torch.zeros(0, 32, *LARGE)).shape


def test_only_convolutions_of_that_kind_change() -> None:
    others = nn.Sequential(
        nn.Conv2d(32, 32, 1),
        nn.Conv2d(32, 32, 3),
        nn.Conv2d(32, 32, 3, padding=1, groups=2),
        nn.Conv2d(32, 32, 3, padding=2, dilation=2),
        nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect"),
    )
    speed_up(others)
    assert {type(module) for module in others} == {nn.Conv2d}


def test_a_detector_has_the_weights_it_had(tiny_model_config: ModelConfig) -> None:
    model = FSAF(tiny_model_config, 3)
    changed = [name for name, module in model.named_modules() if isinstance(module, Conv3x3)]
    assert any(name.startswith("head.") for name in changed)
    again = FSAF(tiny_model_config, 3)
    again.load_state_dict(model.state_dict())
    images = torch.randint(0, 256, (1, 3, 256, 320), dtype=torch.uint8)
    with torch.no_grad():
        for one, other in zip(model.eval()(images).logits, again.eval()(images).logits, strict=True):
            assert torch.equal(one, other)
