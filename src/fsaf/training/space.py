"""The settings that ``fsaf tune`` searches, and the values it tries. To search another one, add it here."""

from collections.abc import Callable
from typing import Any, TypeAlias

from fsaf.config import Config
from fsaf.config.fields import AUTO, is_auto

Suggest: TypeAlias = Callable[[Any, str, Config], Any]
"""Returns a value for a key: takes a trial of Optuna, the key, and the recipe, around which it searches."""


def own_value(config: Config, key: str) -> Any:
    """Return the recipe's value of a key; ``auto`` if it is that."""
    section, name = key.split(".")
    value = getattr(getattr(config, section), name)
    return AUTO if is_auto(value) else value


def _within(factor: float) -> Suggest:
    """Search from the recipe's value divided by ``factor`` to its multiple, evenly in the logarithm."""

    def suggest(trial: Any, key: str, config: Config) -> float:
        own = own_value(config, key)
        return trial.suggest_float(key, own / factor, own * factor, log=True)

    return suggest


def _decay(trial: Any, key: str, config: Config) -> float:
    return trial.suggest_float(key, 1e-5, 0.1, log=True)


def _batch(trial: Any, key: str, config: Config) -> Any:
    own = int(config.data.batch_size)
    sizes = sorted({max(1, own // 2), own, own * 2})
    return trial.suggest_categorical(key, [AUTO, *sizes] if is_auto(config.data.batch_size) else sizes)


def _one_of(*values: Any) -> Suggest:
    """Choose one of ``values`` or the recipe's own."""

    def suggest(trial: Any, key: str, config: Config) -> Any:
        own = own_value(config, key)
        return trial.suggest_categorical(key, list(values) if own in values else [*values, own])

    return suggest


SPACE: dict[str, Suggest] = {
    "optim.lr": _within(10),
    "optim.backbone_rate": _one_of(0.1, 0.3, 1.0),
    "optim.weight_decay": _decay,
    "data.batch_size": _batch,
    "data.augment": _one_of("none", "light", "strong"),
    "model.frozen_stages": _one_of(-1, 1, 2),
}
