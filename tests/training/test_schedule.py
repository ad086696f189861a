"""Compare learning rates with mmengine's recurrences and with values by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsaf.config import OptimConfig
from fsaf.training.schedule import learning_rate, peak_rate


def linear_lr(start: float, end: int, steps: int) -> list[float]:
    """Return the rates of mmengine 0.10's ``LinearParamScheduler``: begin 0, end factor 1, recursive."""
    total = end - 1
    rates = [start]
    for step in range(1, steps):
        if step >= end:
            rates.append(rates[-1])
        else:
            rates.append(rates[-1] * (1 + (1 - start) / (total * start + (step - 1) * (1 - start))))
    return rates


def test_the_published_schedule_is_mmengines() -> None:
    config = OptimConfig()  # 500 steps from 0.001, x0.1 after epochs 8 and 11
    per_epoch = 300
    expected = linear_lr(0.001, 500, 12 * per_epoch)
    for step, warm in enumerate(expected):
        epoch = step // per_epoch
        decayed = warm * (0.01 if epoch >= 11 else 0.1 if epoch >= 8 else 1.0)
        assert learning_rate(config, step, per_epoch, 12 * per_epoch) == pytest.approx(decayed, rel=1e-9)


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.001), (1, 0.001 + 0.999 / 499), (499, 1.0), (500, 1.0), (2399, 1.0), (2400, 0.1)],
)
def test_rates_by_hand(step: int, share: float) -> None:
    assert learning_rate(OptimConfig(), step, 300, 3600) == pytest.approx(share)


def test_one_cycle_rises_falls_and_ends_near_zero() -> None:
    config = OptimConfig(schedule="one_cycle", warmup_steps=10, warmup_factor=0.1)
    rates = [learning_rate(config, step, 20, 200) for step in range(200)]
    assert rates[0] == pytest.approx(0.1) and rates[10] == 1.0 == max(rates)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[105] == pytest.approx(0.5)  # half-way down
    assert 0 < rates[-1] < 1e-3


def test_constant_stays_after_warm_up() -> None:
    config = OptimConfig(schedule="constant", warmup_steps=5)
    assert [learning_rate(config, step, 7, 50) for step in range(4, 50)] == [1.0] * 46


def test_no_warm_up_starts_at_the_peak() -> None:
    for schedule in ("step", "one_cycle", "constant"):
        assert learning_rate(OptimConfig(schedule=schedule, warmup_steps=0), 0, 10, 120) == 1.0


@given(
    schedule=st.sampled_from(["step", "one_cycle", "constant"]),
    warmup=st.integers(0, 600),
    total=st.integers(1, 60),
    per_epoch=st.integers(1, 50),
)
def test_every_rate_is_positive_and_at_most_the_peak(
    schedule: str, warmup: int, total: int, per_epoch: int
) -> None:
    config = OptimConfig(schedule=schedule, warmup_steps=warmup)
    for step in range(total):
        rate = learning_rate(config, step, per_epoch, total)
        assert math.isfinite(rate) and 0 < rate <= 1


def test_a_run_shorter_than_its_warm_up_still_reaches_the_peak() -> None:
    rates = [learning_rate(OptimConfig(warmup_steps=500), step, 4, 20) for step in range(20)]
    assert max(rates) == 1.0


@pytest.mark.parametrize("total", [2, 3, 24, 51, 99])
def test_one_cycle_falls_also_in_a_run_that_its_warm_up_would_fill(total: int) -> None:
    """With two steps an epoch, as for sixteen pictures, the rate rises for half the run and then falls."""
    config = OptimConfig(schedule="one_cycle", warmup_steps=50)
    rates = [learning_rate(config, step, 2, total) for step in range(total)]
    top = rates.index(max(rates))
    assert top <= total // 2 and rates[top] == 1.0
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert total < 24 or rates[-1] < 0.02


def test_peak_rate_scales_with_the_batch_only_if_asked() -> None:
    assert peak_rate(OptimConfig(lr=0.01), 64) == 0.01
    assert peak_rate(OptimConfig(lr=0.01, scale_lr=True), 64) == pytest.approx(0.04)
    assert peak_rate(OptimConfig(lr=0.01, scale_lr=True, base_batch=32), 8) == pytest.approx(0.0025)
