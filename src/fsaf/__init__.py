"""FSAF: the Feature Selective Anchor-Free detector for PyTorch, on NPU, CUDA and CPU.

``fsaf.train("lite0", data="DATA")`` trains one, ``fsaf.load(checkpoint)`` opens it,
``detector.predict(images)`` uses it.
``fsaf.check``, ``fsaf.evaluate`` and ``fsaf.export`` do what the verbs of those names do.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fsaf._version import __version__

if TYPE_CHECKING:
    from fsaf.api import Detector, Run, check, evaluate, export, load, train
    from fsaf.config import Config
    from fsaf.detection.result import Result
    from fsaf.errors import CheckpointError, DataError, DeviceError, RecipeError, UserError, WriteError
    from fsaf.model.detector import FSAF
    from fsaf.training.callbacks import Callback

__all__ = [
    "FSAF",
    "Callback",
    "CheckpointError",
    "Config",
    "DataError",
    "Detector",
    "DeviceError",
    "RecipeError",
    "Result",
    "Run",
    "UserError",
    "WriteError",
    "__version__",
    "check",
    "evaluate",
    "export",
    "load",
    "train",
]

_HOMES = {
    "Callback": "fsaf.training.callbacks",
    "CheckpointError": "fsaf.errors",
    "Config": "fsaf.config",
    "DataError": "fsaf.errors",
    "Detector": "fsaf.api",
    "DeviceError": "fsaf.errors",
    "FSAF": "fsaf.model.detector",
    "RecipeError": "fsaf.errors",
    "Result": "fsaf.detection.result",
    "Run": "fsaf.api",
    "UserError": "fsaf.errors",
    "WriteError": "fsaf.errors",
    "check": "fsaf.api",
    "evaluate": "fsaf.api",
    "export": "fsaf.api",
    "load": "fsaf.api",
    "train": "fsaf.api",
}
"""The module that each public name comes from."""


def __getattr__(name: str) -> Any:
    """Import the public names when first used, so that ``fsaf --help`` need not wait for PyTorch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fsaf' has no attribute {name!r}")
