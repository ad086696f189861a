"""Compare optimizers on flat tensors with PyTorch's optimizers."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fsaf.training.flat import ALIGNMENT, Flat, FlatAdamW, FlatOptimizer, FlatSGD


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 5, 1)).to(
        memory_format=torch.channels_last
    )


def plain(name: str, model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    first, *others = model.parameters()
    groups = [{"params": [first], "lr": 0.01}, {"params": others, "lr": 0.003}]
    if name == "adamw":
        return torch.optim.AdamW(groups, weight_decay=0.05, **options)
    return torch.optim.SGD(groups, momentum=0.9 if name == "sgd" else 0.0, weight_decay=0.05, **options)


def flat(name: str, model: nn.Module) -> FlatOptimizer:
    given = plain(name, model)
    return FlatAdamW(given) if isinstance(given, torch.optim.AdamW) else FlatSGD(given)  # type: ignore[arg-type]


def backward(model: nn.Module, seed: int) -> None:
    images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    model.zero_grad()
    model(images).square().sum().backward()


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("name", ["sgd", "sgd without momentum", "adamw"])
def test_steps_are_those_of_pytorch_and_skipped_ones_change_nothing(name: str) -> None:
    mine, theirs = network(), network()
    optimizer, reference = flat(name, mine), plain(name, theirs)
    for step in range(8):
        for model in (mine, theirs):
            backward(model, step)
        gathered = optimizer.gather_gradients()
        skipped = step in (0, 1, 5)
        before = copy.deepcopy((mine.state_dict(), optimizer.state_dict()["state"]))
        if skipped:
            for gradient in gathered:
                gradient.fill_(torch.nan if step else torch.inf)
        optimizer.found_inf = torch.tensor(float(skipped))  # type: ignore[attr-defined]
        optimizer.step()
        if skipped:
            after = (mine.state_dict(), optimizer.state_dict()["state"])
            for a, b in zip(tensors(before), tensors(after), strict=True):
                assert torch.equal(a, b)
        else:
            reference.step()
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["sgd", "sgd without momentum", "adamw"])
def test_a_learning_rate_on_the_device_gives_the_same_steps(name: str) -> None:
    models = network(), network()
    optimizers = [flat(name, model) for model in models]
    for group in optimizers[1].param_groups:
        group["lr"] = torch.tensor(group["lr"])
    for step in range(3):
        for model, optimizer in zip(models, optimizers, strict=True):
            backward(model, step)
            optimizer.gather_gradients()
            optimizer.step()
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["sgd", "sgd without momentum", "adamw"])
@pytest.mark.parametrize("fused", [True, False])
def test_state_dicts_are_exchanged_with_pytorch_both_ways(name: str, fused: bool) -> None:
    mine, theirs = network(), network()
    optimizer, reference = flat(name, mine), plain(name, theirs, fused=fused)

    def step(*seeds: int) -> None:
        for seed in seeds:
            for model in (mine, theirs):
                backward(model, seed)
            optimizer.gather_gradients()
            optimizer.step()
            reference.step()

    step(0, 1)
    state = copy.deepcopy((optimizer.state_dict(), reference.state_dict()))
    reference.load_state_dict(state[0])
    optimizer.load_state_dict(state[1])
    step(2, 3)
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert [sorted(entry) for entry in optimizer.state_dict()["state"].values()] == [
        sorted(key for key, value in entry.items() if value is not None)
        for entry in state[1]["state"].values()
    ]


def test_weights_keep_shape_and_strides_and_start_at_aligned_addresses() -> None:
    weights = list(network().parameters())
    packed = Flat(weights)
    packed.copy_from(weights)
    for weight, view in zip(weights, packed.views, strict=True):
        assert torch.equal(weight, view) and weight.stride() == view.stride()
        assert view.storage_offset() % ALIGNMENT == 0
    assert packed.data.abs().sum() == pytest.approx(sum(weight.abs().sum().item() for weight in weights))
