"""FSAF: the Feature Selective Anchor-Free detector for PyTorch, on NPU, CUDA and CPU."""

from importlib.metadata import version

__version__ = version("fsaf")
