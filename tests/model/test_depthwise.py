"""Depthwise convolutions on a CPU: results and gradients are those of ``nn.Conv2d``."""

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from fsaf.config import ModelConfig
from fsaf.model import depthwise
from fsaf.model.depthwise import Depthwise, DepthwiseSame, speed_up_depthwise
from fsaf.model.detector import FSAF

CHANNELS = 24


def plain(same: bool, kernel: int | tuple[int, int], stride: int, bias: bool) -> nn.Conv2d:
    """Return a depthwise convolution of PyTorch, or of timm with TensorFlow's padding."""
    if same:
        return Conv2dSame(CHANNELS, CHANNELS, kernel, stride=stride, groups=CHANNELS, bias=bias)
    padding = kernel // 2 if isinstance(kernel, int) else tuple(side // 2 for side in kernel)
    return nn.Conv2d(CHANNELS, CHANNELS, kernel, stride, padding, groups=CHANNELS, bias=bias)


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    difference = (found.detach().double() - expected.detach().double()).abs().max()
    assert float(difference) <= tolerance * float(expected.detach().abs().max())


@pytest.mark.parametrize("kernel", [3, 5, 7, (1, 5)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_results_and_gradients(
    kernel: int | tuple[int, int], stride: int, bias: bool, same: bool, layout: torch.memory_format
) -> None:
    exact = plain(same, kernel, stride, bias)
    model = nn.Sequential(copy.deepcopy(exact))
    speed_up_depthwise(model)
    assert type(model[0]) is (DepthwiseSame if same else Depthwise)
    x = torch.randn(2, CHANNELS, 13, 18).contiguous(memory_format=layout)
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.bfloat16, 2e-2)):
        model.zero_grad()
        exact.zero_grad()
        mine, reference = x.clone().requires_grad_(), x.double().requires_grad_()
        with torch.autocast("cpu", dtype, enabled=dtype is torch.bfloat16):
            found = model(mine)
        expected = exact.double()(reference)
        assert found.dtype is dtype
        close(found, expected, tolerance)
        weights = torch.randn(found.shape, dtype=torch.float64)
        (found * weights).sum().backward()
        (expected * weights).sum().backward()
        for one, other in [(mine, reference), *zip(model.parameters(), exact.parameters(), strict=True)]:
            assert one.grad is not None and other.grad is not None and one.grad.dtype is torch.float32
            close(one.grad, other.grad, tolerance)


def test_no_kernel_computed_at_once_is_wider_than_the_fast_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []

    def noting(gradient: Tensor, x: Tensor, weight: Tensor, *rest: object) -> object:
        widths.append((weight.shape[3], rest[-1]))
        return backward(gradient, x, weight, *rest)  # type: ignore[arg-type]

    backward = depthwise._backward
    monkeypatch.setattr(depthwise, "_backward", noting)
    model = nn.Sequential(plain(False, 5, 1, False))
    speed_up_depthwise(model)
    model(torch.randn(1, CHANNELS, 8, 8)).sum().backward()
    assert widths == [(3, [False, True, False]), (2, [False, True, False])]


@pytest.mark.parametrize("frozen", ["weights", "input"])
def test_only_wanted_gradients_are_computed(frozen: str) -> None:
    model = nn.Sequential(plain(False, 5, 1, True))
    speed_up_depthwise(model)
    x = torch.randn(1, CHANNELS, 8, 8, requires_grad=frozen != "input")
    model.requires_grad_(frozen != "weights")
    model(x).sum().backward()
    assert (x.grad is None) is (frozen == "input")
    assert all((weight.grad is None) is (frozen == "weights") for weight in model.parameters())


def test_only_convolutions_of_that_kind_change() -> None:
    others = nn.Sequential(
        nn.Conv2d(32, 32, 3),
        nn.Conv2d(32, 32, 3, groups=2),
        nn.Conv2d(32, 64, 3, groups=32),
        nn.Conv2d(32, 32, 3, dilation=2, groups=32),
        nn.Conv2d(32, 32, 3, padding="same", groups=32),
        nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect", groups=32),
    )
    with torch.device("meta"):
        others.append(nn.Conv2d(32, 32, 3, groups=32))
    speed_up_depthwise(others)
    assert {type(module) for module in others} == {nn.Conv2d}


def test_a_detectors_outputs_and_state_are_the_same(tiny_model_config: ModelConfig) -> None:
    exact = FSAF(tiny_model_config, 3)
    fast = copy.deepcopy(exact)
    speed_up_depthwise(fast)
    assert any(isinstance(module, (Depthwise, DepthwiseSame)) for module in fast.modules())
    assert list(fast.state_dict()) == list(exact.state_dict())
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    for one, other in zip(fast(images).tensors(), exact(images).tensors(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_a_compiled_or_exported_network_does_not_contain_them() -> None:
    model = nn.Sequential(plain(True, 5, 2, False))
    speed_up_depthwise(model)
    program = torch.export.export(model, (torch.randn(1, CHANNELS, 8, 8),))
    assert "autograd_function" not in str(program.graph)
