"""Test the optimizers, and compare the moving average with a float64 loop."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fsaf.config import OptimConfig
from fsaf.training.optim import MovingAverage, make_optimizer, set_rate


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU())


def test_optimizers_take_their_settings_and_leave_frozen_weights_out() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    sgd = make_optimizer(model, OptimConfig(lr=0.02, momentum=0.8, weight_decay=0.003))
    adamw = make_optimizer(model, OptimConfig(name="adamw", lr=0.002, weight_decay=0.05))
    assert isinstance(sgd, torch.optim.SGD) and isinstance(adamw, torch.optim.AdamW)
    (group,) = sgd.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.02, 0.8, 0.003)
    assert (adamw.param_groups[0]["lr"], adamw.param_groups[0]["weight_decay"]) == (0.002, 0.05)
    for optimizer in (sgd, adamw):
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert trained == {id(p) for p in model.parameters() if p.requires_grad}
        assert len(trained) == 3


def small(memory_format: torch.memory_format = torch.channels_last) -> nn.Module:
    """Return convolutions as in training, with gradients that are not zero."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 5, 1)).to(memory_format=memory_format)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_steps_are_those_of_the_plain_optimizers_and_skipped_ones_never_were(name: str) -> None:
    mine, plain = small(), small()
    config = OptimConfig(name=name, lr=0.01, weight_decay=0.05)  # type: ignore[arg-type]
    fused = make_optimizer(mine, config)
    reference: torch.optim.Optimizer = (
        torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9, weight_decay=0.05)
        if name == "sgd"
        else torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.05)
    )
    for step in range(8):
        skipped = step in (0, 1, 5)
        images = torch.randn(2, 3, 6, 6)
        for model in (mine, plain):
            model.zero_grad()
            model(images).square().sum().backward()
        before = copy.deepcopy((mine.state_dict(), fused.state_dict()["state"]))
        if skipped:
            for parameter in mine.parameters():
                parameter.grad.fill_(torch.nan)
        fused.found_inf = torch.tensor(float(skipped))
        fused.step()
        if skipped:
            weights, state = mine.state_dict(), fused.state_dict()["state"]
            assert all(torch.equal(weights[key], value) for key, value in before[0].items())
            for number, tensors in before[1].items():
                assert all(torch.equal(state[number][key], value) for key, value in tensors.items())
        else:
            reference.step()
    for parameter, expected in zip(mine.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-6, atol=1e-7)
        for key, value in reference.state[expected].items():
            torch.testing.assert_close(fused.state[parameter][key], value, rtol=1e-6, atol=1e-7)
    assert all(
        (p - q).abs().max() > 0.001 for p, q in zip(mine.parameters(), small().parameters(), strict=True)
    )


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_rate_on_the_device_is_the_rate(name: str) -> None:
    models = small(), small()
    config = OptimConfig(name=name, weight_decay=0.05)  # type: ignore[arg-type]
    optimizers = [make_optimizer(model, config, tensor_rate=i == 1) for i, model in enumerate(models)]
    on_device = optimizers[1].param_groups[0]["lr"]
    for rate in (0.01, 0.005, 0.02):
        images = torch.randn(2, 3, 6, 6)
        for model, optimizer in zip(models, optimizers, strict=True):
            set_rate(optimizer, rate)
            model.zero_grad()
            model(images).square().sum().backward()
            optimizer.step()
    assert optimizers[1].param_groups[0]["lr"] is on_device
    for mine, theirs in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


def test_the_average_is_that_of_a_loop() -> None:
    model = network()
    average = MovingAverage(model, 0.9)
    names = [name for name, value in model.state_dict().items() if value.is_floating_point()]
    expected = {name: model.state_dict()[name].double().numpy().copy() for name in names}
    for update in range(100):
        with torch.no_grad():
            for value in model.state_dict().values():
                if value.is_floating_point():
                    value.add_(torch.randn_like(value))
        average.update(model)
        decay = min(0.9, (1 + update) / (10 + update))
        for name in names:
            new = model.state_dict()[name].double().numpy()
            expected[name] = decay * expected[name] + (1 - decay) * new
    assert {"1.running_mean", "1.running_var", "0.weight"} <= set(names)
    for name in names:
        found = average.model.state_dict()[name].numpy()
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-5)


def test_the_average_is_its_own_model() -> None:
    model = network().train()
    average = MovingAverage(model, 0.5)
    before = copy.deepcopy(model.state_dict())
    average.update(model)
    assert not any(p.requires_grad for p in average.model.parameters())
    assert not average.model.training and model.training
    assert all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        average.model[0].weight.zero_()
    assert torch.equal(model.state_dict()["0.weight"], before["0.weight"])


def test_a_restored_average_goes_on_as_the_first() -> None:
    model = network()
    first = MovingAverage(model, 0.99)
    for _ in range(5):
        first.update(model)
    second = MovingAverage(network(), 0.99)
    second.model.load_state_dict(first.model.state_dict())
    second.updates = first.updates
    with torch.no_grad():
        model[0].weight.add_(1)
    for average in (first, second):
        average.update(model)
    assert first.updates == second.updates == 6
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name])


@pytest.mark.parametrize("tensor_rate", [False, True])
def test_the_backbone_has_its_share_of_the_rate(tensor_rate: bool) -> None:
    model = nn.ModuleDict({"backbone": network(), "head": nn.Conv2d(3, 1, 1)})
    config = OptimConfig(name="adamw", lr=0.1, backbone_rate=0.25)
    optimizer = make_optimizer(model, config, tensor_rate=tensor_rate)
    for rate in (0.1, 0.02):
        set_rate(optimizer, rate)
        rates = {id(p): float(g["lr"]) for g in optimizer.param_groups for p in g["params"]}
        for name, parameter in model.named_parameters():
            share = 0.25 if name.startswith("backbone") else 1.0
            assert rates.pop(id(parameter)) == pytest.approx(rate * share)
        assert not rates


def test_the_step_of_a_share_is_that_of_a_lower_rate() -> None:
    weights = []
    for config in (
        OptimConfig(name="sgd", lr=0.1, backbone_rate=0.5),
        OptimConfig(name="sgd", lr=0.05),
    ):
        torch.manual_seed(0)
        model = nn.ModuleDict({"backbone": nn.Conv2d(3, 4, 3)})
        optimizer = make_optimizer(model, config)
        for _ in range(3):
            model["backbone"](torch.ones(1, 3, 5, 5)).square().sum().backward()
            optimizer.step()
        weights.append(model["backbone"].weight)
    torch.testing.assert_close(weights[0], weights[1])
