"""A checkpoint opened with PyTorch."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fsaf.checkpoints.any_format import read_checkpoint
from fsaf.checkpoints.weights import load_weights
from fsaf.config import PredictConfig
from fsaf.detection.found import Found
from fsaf.detection.network import Opened
from fsaf.detection.postprocess import Candidates, Detections, find_candidates, postprocess
from fsaf.device import copy_images, place, resolve_device, use_exact_fp32
from fsaf.model.detector import FSAF
from fsaf.model.fold import fold_batch_norms
from fsaf.model.outputs import RawOutputs


class TorchNetwork:
    """An ``FSAF`` on its device, as ``fsaf.detection.network.Network``."""

    name = "this detector"
    fixed_size = None

    def __init__(self, module: FSAF) -> None:
        self.module = module
        self.runs = module
        """The network that computes: ``module``, or a copy without batch norms (``fold``)."""

    @property
    def device(self) -> str:
        """Device of the weights."""
        return str(self.module.mean.device)

    def fold(self, folded: bool) -> None:
        """Run a copy with the batch norms of the backbone merged into its convolutions, or ``module``."""
        self.runs = fold_batch_norms(self.module) if folded else self.module

    def find(self, images: np.ndarray, sizes_b2: np.ndarray, settings: PredictConfig) -> list[Found]:
        """Return the detections of each image as arrays."""
        return self.detect(torch.from_numpy(images), torch.from_numpy(sizes_b2), settings).rows()

    @torch.inference_mode()
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
