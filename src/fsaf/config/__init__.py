"""The schema of a recipe: typed, keyword-only dataclasses that check their values when built.

A YAML file in ``configs/`` holds one recipe; ``--key.sub value`` overrides any key of it. Read ``run.py``
first: it lists the sections, each in a file of its own. ``fields.py`` declares a key with its text.
"""

from fsaf.config.data import DataConfig, SplitConfig
from fsaf.config.model import ModelConfig
from fsaf.config.objective import ObjectiveConfig
from fsaf.config.predict import PredictConfig
from fsaf.config.run import RENAMED, Config, to_dict
from fsaf.config.train import LogConfig, OptimConfig, TrainConfig

__all__ = [
    "RENAMED",
    "Config",
    "DataConfig",
    "LogConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "PredictConfig",
    "SplitConfig",
    "TrainConfig",
    "to_dict",
]
