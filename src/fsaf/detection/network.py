"""The network of a detector behind one interface, whatever runs it: PyTorch here, exported files elsewhere.

Shapes: B batch, H and W of the padded images.
"""

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fsaf.checkpoints.any_format import read_checkpoint
from fsaf.checkpoints.weights import load_weights
from fsaf.config import Config, PredictConfig
from fsaf.data.records import Classes
from fsaf.detection.postprocess import Candidates, Detections, find_candidates, postprocess
from fsaf.device import copy_images, place, resolve_device, use_exact_fp32
from fsaf.model.detector import FSAF
from fsaf.model.outputs import RawOutputs


class Network(Protocol):
    """Interface between a ``Detector`` and its network.

    images are (B, 3, H, W) uint8 RGB, padded at the right and bottom; sizes_b2 is (B, 2), height and width of
    each image inside its padding. Both may be on any device.
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
    def module(self) -> FSAF | None:
        """The PyTorch network, or None for an exported file."""

    def detect(self, images: Tensor, sizes_b2: Tensor, settings: PredictConfig) -> Detections:
        """Return the detections of a batch, in pixels of the resized images."""

    def candidates(self, images: Tensor, sizes_b2: Tensor, settings: PredictConfig) -> Candidates:
        """Return the boxes before suppression. A file with suppression inside returns its detections."""


class TorchNetwork:
    """An ``FSAF`` on its device."""

    name = "this detector"
    fixed_size = None

    def __init__(self, module: FSAF) -> None:
        self.module = module
        self.runs = module
        """The network that computes: ``module``, or a copy without batch norms (``Detector.fold``)."""

    @property
    def device(self) -> str:
        """Device of the weights."""
        return str(self.module.mean.device)

    def detect(self, images: Tensor, sizes_b2: Tensor, settings: PredictConfig) -> Detections:
        """Run the network and its post-processing on the device of its weights."""
        outputs, sizes_b2 = self._run(images, sizes_b2)
        return postprocess(outputs, sizes_b2, settings)

    def candidates(self, images: Tensor, sizes_b2: Tensor, settings: PredictConfig) -> Candidates:
        """Run the network and stop before suppression."""
        outputs, sizes_b2 = self._run(images, sizes_b2)
        return find_candidates(outputs, sizes_b2, settings)

    def _run(self, images: Tensor, sizes_b2: Tensor) -> tuple[RawOutputs, Tensor]:
        device = self.module.mean.device
        sizes_b2 = sizes_b2.to(device, non_blocking=True)
        return self.runs(copy_images(images, device), sizes_b2), sizes_b2


Opened = tuple[Network, Classes, Config]
"""Return type of the functions that open a file: the arguments of ``Detector``."""


def open_checkpoint(path: Path, device: str | torch.device | None) -> Opened:
    """Open a checkpoint of any format with PyTorch.

    device: as ``fsaf.device.resolve_device``; None is ``auto``. Raises UserError if the file is missing,
    damaged or something else.
    """
    checkpoint = read_checkpoint(path)
    config, classes = checkpoint.config, checkpoint.classes
    model = FSAF(config.model, len(classes))
    load_weights(model, checkpoint.weights, str(path))
    chosen = device if isinstance(device, torch.device) else resolve_device(device or "auto")
    if config.train.exact_fp32:
        use_exact_fp32(chosen)
    return TorchNetwork(place(model.eval(), chosen)), classes, config
