"""The network of a detector behind one interface, whatever runs it: PyTorch or the library of a file.

Shapes: B batch, H and W of the padded images.
"""

from typing import TYPE_CHECKING, Protocol

import numpy as np

from fsaf.config import Config, PredictConfig
from fsaf.data.records import Classes
from fsaf.detection.found import Found

if TYPE_CHECKING:  # an exported file needs no PyTorch
    from torch import Tensor
    from typing_extensions import TypeIs

    from fsaf.detection.postprocess import Candidates, Detections
    from fsaf.model.detector import FSAF


class Network(Protocol):
    """Interface between a ``Detector`` and its network.

    images are (B, 3, H, W) uint8 RGB, padded at the right and bottom; sizes_b2 is (B, 2), height and width of
    each image inside its padding. Tensors may be on any device.
    """

    @property
    def name(self) -> str:
        """Name for messages: the path of a file."""

    @property
    def device(self) -> str:
        """Device that runs it: ``cpu``, ``npu:0``."""

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """The only (H, W) it takes, or None if it takes any."""

    @property
    def module(self) -> "FSAF | None":
        """The PyTorch network, or None for an exported file."""

    def fold(self, folded: bool) -> None:
        """Run with or without the backbone's batch norms merged into convolutions; a file stays as it is."""

    def find(self, images: np.ndarray, sizes_b2: np.ndarray, settings: PredictConfig) -> list[Found]:
        """Return the detections of each image of a batch, in pixels of the resized images."""

    def detect(self, images: "Tensor", sizes_b2: "Tensor", settings: PredictConfig) -> "Detections":
        """Return the same as tensors of a fixed shape."""

    def candidates(self, images: "Tensor", sizes_b2: "Tensor", settings: PredictConfig) -> "Candidates":
        """Return the boxes before suppression. A file with suppression inside returns its detections."""


def is_network(model: "FSAF | Network") -> "TypeIs[Network]":
    """Return False for a PyTorch network as such."""
    return hasattr(model, "find")


Opened = tuple[Network, Classes, Config]
"""Return type of the functions that open a file: the arguments of ``Detector``."""
