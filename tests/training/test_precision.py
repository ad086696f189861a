"""Loss scaling changes no gradient, and a step that overflows changes no weight."""

import pytest
import torch
from torch import Tensor, nn

from fsaf.config import Config, OptimConfig, TrainConfig
from fsaf.training import precision as precision_module
from fsaf.training.optim import make_optimizer
from fsaf.training.precision import Precision, fit_precision

CPU = torch.device("cpu")


def precision(dtype: str = "fp16", scale: float | str = "dynamic") -> Precision:
    return Precision(TrainConfig(precision=dtype, loss_scale=scale), CPU)  # type: ignore[arg-type]


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return make_optimizer(model, OptimConfig(lr=0.1, momentum=0.0, weight_decay=0.0))


def model_and_loss() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    return model, model(torch.randn(5, 4)).square().mean()


@pytest.mark.parametrize(
    ("dtype", "scale", "factor"), [("fp32", 32.0, 1.0), ("fp16", 32.0, 32.0), ("fp16", "dynamic", 2.0**16)]
)
@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_gradients_equal_the_unscaled_ones(
    dtype: str, scale: float | str, factor: float, clip: float
) -> None:
    plain, loss = model_and_loss()
    loss.backward()
    norm = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in plain.parameters())).item()
    shrink = min(1.0, clip / (norm + 1e-6)) if clip else 1.0

    model, loss = model_and_loss()
    scaled = precision(dtype, scale)
    assert scaled.loss_scale == (factor if dtype == "fp16" else 1.0)
    optimizer = sgd(model)
    scaled.backward(loss)
    found = scaled.step(optimizer, model.parameters(), clip)
    assert norm > 0.05
    assert found.item() == pytest.approx(norm, rel=1e-5)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad * shrink, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(mine, theirs - 0.1 * theirs.grad * shrink, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale", [32.0, "dynamic"])
def test_an_overflow_skips_the_step_and_shrinks_only_a_dynamic_scale(scale: float | str) -> None:
    scaled = precision("fp16", scale)
    before = scaled.loss_scale
    for name, factor, same in (("finite", 1.0, False), ("overflow", 3e38, True), ("finite", 1.0, False)):
        model, loss = model_and_loss()
        old = [p.detach().clone() for p in model.parameters()]
        optimizer = sgd(model)
        scaled.backward(loss * factor)
        scaled.step(optimizer, model.parameters(), 10.0)
        kept = all(torch.equal(a, b) for a, b in zip(old, model.parameters(), strict=True))
        assert kept is same, name
        assert all(p.isfinite().all() for p in model.parameters())
    assert scaled.loss_scale == (before if scale == 32.0 else before / 2)


def test_the_scale_is_restored_with_the_run() -> None:
    first = precision()
    model, loss = model_and_loss()
    first.backward(loss * 3e38)
    first.step(sgd(model), model.parameters(), 0.0)
    second = precision()
    second.load_state_dict(first.state_dict())
    assert second.loss_scale == first.loss_scale == 2.0**15


def test_a_scale_given_now_counts_over_the_one_saved() -> None:
    saved = precision("fp16", 32.0).state_dict()
    other = precision("fp16", 64.0)
    other.load_state_dict(saved)
    assert other.loss_scale == 64.0


@pytest.mark.parametrize(("before", "after"), [("fp32", "fp16"), ("fp16", "fp32"), ("bf16", "fp16")])
def test_a_run_may_go_on_in_another_precision(before: str, after: str) -> None:
    saved, fresh = precision(before).state_dict(), precision(after)
    scale = fresh.loss_scale
    fresh.load_state_dict(saved)
    assert fresh.loss_scale == scale


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_network_runs_in_the_type_and_keeps_its_weights(name: str, dtype: torch.dtype) -> None:
    layer = nn.Conv2d(3, 4, 3)
    with precision(name).autocast():
        out = layer(torch.randn(1, 3, 8, 8))
    assert out.dtype is dtype and layer.weight.dtype is torch.float32
    out.float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype is torch.float32


def chosen(wanted: str, unit: str | None, monkeypatch: pytest.MonkeyPatch, earlier: str = "") -> list[str]:
    """Return the precision of a run on a CPU with or without bf16 arithmetic, and the notes about it."""
    monkeypatch.setattr(precision_module, "bf16_unit", lambda device: unit)
    config, before = (
        Config(train=TrainConfig(precision=name)) if name else None  # type: ignore[arg-type]
        for name in (wanted, earlier)
    )
    assert config is not None
    config, notes = fit_precision(config, CPU, before)
    return [config.train.precision, *notes]


def test_auto_is_bf16_where_the_device_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen("auto", "avx512_bf16", monkeypatch) == [
        "bf16", "precision: bf16, because this CPU computes it (avx512_bf16)",
    ]  # fmt: skip
    name, note = chosen("auto", None, monkeypatch)
    assert name == "fp32" and note == "precision: fp32, because this CPU does not compute in bf16"


@pytest.mark.parametrize("unit", ["amx_bf16", None])
@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_a_given_precision_stays(name: str, unit: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(name, unit, monkeypatch) == [name]


def test_a_resumed_run_keeps_its_precision_on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen("auto", "avx512_bf16", monkeypatch, earlier="fp32")[0] == "fp32"
    name, why, warning = chosen("auto", None, monkeypatch, earlier="bf16")
    assert name == "bf16" and "because the run began with it" in why
    assert "emulates" in warning and "--train.precision fp32" in warning


def test_emulated_bf16_is_named_if_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "emulates" in chosen("bf16", None, monkeypatch)[1]
    assert chosen("bf16", "amx_bf16", monkeypatch) == ["bf16"]


def test_processes_agree_on_what_all_of_them_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_module.group, "gather_all", lambda unit: [unit, None])
    assert chosen("auto", "amx_bf16", monkeypatch)[0] == "fp32"
