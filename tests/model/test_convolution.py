"""3x3 convolutions on a CPU: results and gradients are those of ``nn.Conv2d``."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fsaf.config import ModelConfig
from fsaf.device import has_winograd
from fsaf.model import convolution
from fsaf.model.convolution import MIN_WORK, Conv3x3, use_winograd
from fsaf.model.detector import FSAF
from fsaf.model.outputs import RawOutputs

winograd = pytest.mark.skipif(not has_winograd(torch.device("cpu")), reason="PyTorch came without NNPACK")

LARGE, SMALL = (80, 81), (7, 5)
assert 32 * LARGE[0] * LARGE[1] >= MIN_WORK > 32 * SMALL[0] * SMALL[1]


def pair(
    stride: int = 1, bias: bool = True, channels: tuple[int, int] = (32, 40)
) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Return a plain convolution and one of ours with the same weights."""
    plain = nn.Conv2d(*channels, 3, stride=stride, padding=1, bias=bias)
    ours = nn.Sequential(copy.deepcopy(plain))
    use_winograd(ours)
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
    use_winograd(others)
    assert {type(module) for module in others} == {nn.Conv2d}


def test_it_is_turned_on_and_off_in_place() -> None:
    plain, ours = pair()
    model = nn.Sequential(ours)
    use_winograd(model, on=False)
    assert type(ours) is nn.Conv2d
    use_winograd(model)
    assert type(ours) is Conv3x3
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), plain.parameters(), strict=True))


def test_only_networks_on_a_cpu_change() -> None:
    with torch.device("meta"):
        elsewhere = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1))
    use_winograd(elsewhere)
    assert type(elsewhere[0]) is nn.Conv2d


def count(model: nn.Module) -> int:
    return sum(type(module) is Conv3x3 for module in model.modules())


@pytest.fixture
def detector(tiny_model_config: ModelConfig) -> FSAF:
    model = FSAF(tiny_model_config, 3).eval()
    assert count(model) == 0
    use_winograd(model)
    assert count(model.head) == 4 and count(model.backbone) > 0
    return model


def test_a_detectors_outputs_and_state_are_the_same(detector: FSAF, tiny_model_config: ModelConfig) -> None:
    plain = FSAF(tiny_model_config, 3).eval()
    plain.load_state_dict(detector.state_dict())
    images = torch.randint(0, 256, (1, 3, *SIZE), dtype=torch.uint8)
    with torch.no_grad():
        for one, other in zip(detector(images).tensors(), plain(images).tensors(), strict=True):
            close(one, other)


SIZE = (512, 512)
"""Its feature maps are large enough for Winograd's algorithm."""


class Flat(nn.Module):
    """The network, with outputs that ``torch.jit.trace`` supports."""

    def __init__(self, network: FSAF) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs: RawOutputs = self.network(images)
        return tuple(outputs.tensors())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
@torch.no_grad()
def test_a_traced_network_can_be_saved(detector: FSAF, tmp_path: Path) -> None:
    module, images = Flat(detector), 255 * torch.rand(1, 3, *SIZE)
    torch.jit.trace(module, images).save(tmp_path / "traced.pt")
    again = torch.jit.load(tmp_path / "traced.pt")
    for found, expected in zip(again(images), module(images), strict=True):
        close(found, expected)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("kind", ["grad", "vmap", pytest.param("jvp", marks=pytest.mark.slow)])
def test_torch_func_transforms_the_network(detector: FSAF, kind: str) -> None:
    images, weights = 255 * torch.rand(1, 3, *SIZE), dict(detector.head.named_parameters())
    levels = [x.detach() for x in detector.pyramid(detector.backbone(detector.normalise(images, None)))]

    def loss(weights: dict[str, Tensor]) -> Tensor:
        outputs = torch.func.functional_call(detector.head, weights, (levels,))
        return torch.stack([x.square().mean() for x in outputs.tensors()]).sum()

    def transformed() -> list[Tensor]:
        if kind == "grad":
            return list(torch.func.grad(loss)(weights).values())
        if kind == "vmap":
            return [torch.func.vmap(loss)({name: torch.stack([x, 2 * x]) for name, x in weights.items()})]
        return list(torch.func.jvp(loss, (weights,), (weights,)))

    found = transformed()
    use_winograd(detector, on=False)
    for one, other in zip(found, transformed(), strict=True):
        close(one, other)
