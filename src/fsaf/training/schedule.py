"""Compute the learning rate from the step alone, so that a resumed run needs no state for it."""

import math

from fsaf.config import OptimConfig


def learning_rate(
    config: OptimConfig, step: int, steps_per_epoch: int, total_steps: int, made: int = 0
) -> float:
    """Return the rate at ``step`` (from 0) as a share of the peak rate.

    Warm-up is linear from ``warmup_factor`` (mmengine's LinearLR). The schedule ``step`` decays at the
    milestones. After warm-up, ``one_cycle`` follows half a cosine from 1 to 0 at the last step, and
    ``constant`` stays at 1. If there are few steps, warm-up ends at the last step at the latest, with
    ``one_cycle`` in the middle. made: steps made, if that is more than ``step``, as in a run that was resumed
    with larger batches; warm-up that is over does not begin again.
    """
    most = total_steps // 2 if config.schedule == "one_cycle" else total_steps - 1
    warmup = min(config.warmup_steps, most)
    if max(step, made) < warmup:
        rise = step / max(warmup - 1, 1)
        ramp = config.warmup_factor + (1 - config.warmup_factor) * rise
    else:
        ramp = 1.0
    if config.schedule == "step":
        passed = sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
        return ramp * config.decay**passed
    if config.schedule == "one_cycle" and max(step, made) >= warmup:
        return 0.5 * (1 + math.cos(math.pi * max(step - warmup, 0) / max(total_steps - warmup, 1)))
    return ramp


def peak_rate(config: OptimConfig, total_batch: int) -> float:
    """Return ``lr``, scaled linearly with the total batch if ``scale_lr`` (Goyal et al. 2017)."""
    return config.lr * total_batch / config.base_batch if config.scale_lr else config.lr
