"""FSAF: the Feature Selective Anchor-Free detector for PyTorch, on NPU, CUDA and CPU.

``fsaf.train(config)`` trains one, ``fsaf.load(checkpoint)`` opens it, ``detector.predict(images)`` uses it.
``fsaf.check``, ``fsaf.evaluate`` and ``fsaf.export`` do what the verbs of those names do.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fsaf._version import __version__

if TYPE_CHECKING:
    from fsaf.api import check, evaluate, export
    from fsaf.config import Config
    from fsaf.detection.detector import Detector, Result, load
    from fsaf.errors import UserError
    from fsaf.model.detector import FSAF
    from fsaf.training.trainer import train

__all__ = [
    "FSAF",
    "Config",
    "Detector",
    "Result",
    "UserError",
    "__version__",
    "check",
    "evaluate",
    "export",
    "load",
    "train",
]

_HOMES = {
    "Config": "fsaf.config",
    "Detector": "fsaf.detection.detector",
    "FSAF": "fsaf.model.detector",
    "Result": "fsaf.detection.detector",
    "UserError": "fsaf.errors",
    "check": "fsaf.api",
    "evaluate": "fsaf.api",
    "export": "fsaf.api",
    "load": "fsaf.detection.detector",
    "train": "fsaf.training.trainer",
}
"""The module that each public name comes from."""


def __getattr__(name: str) -> Any:
    """Import the public names when first used, so that ``fsaf --help`` need not wait for PyTorch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fsaf' has no attribute {name!r}")
