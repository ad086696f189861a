"""FSAF: the Feature Selective Anchor-Free detector for PyTorch, on NPU, CUDA and CPU.

``fsaf.load(checkpoint)`` opens a detector, ``detector.predict(images)`` uses it.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsaf.model.detector import FSAF
    from fsaf.results.predict import Detector, Result, load

__version__ = version("fsaf")
__all__ = ["FSAF", "Detector", "Result", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """Import the public names when first used, so that ``fsaf --help`` need not wait for PyTorch."""
    if name in __all__:
        from fsaf.results import predict

        return getattr(predict, name)
    raise AttributeError(f"module 'fsaf' has no attribute {name!r}")
