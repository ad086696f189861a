"""Open a detector with settings from the command line."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from fsaf.detection.detector import Detector


def open_detector(
    checkpoint: str, overrides: Sequence[str], device: "torch.device | str | None" = None
) -> "Detector":
    """Open a checkpoint or exported file; ``overrides`` replace its settings of data and post-processing."""
    from fsaf.config import to_dict
    from fsaf.detection.detector import load
    from fsaf.model.convolution import use_winograd
    from fsaf.recipe import build_config

    detector = load(checkpoint, device)
    detector.config = build_config(to_dict(detector.config), overrides, where=checkpoint)
    if detector.network.module is not None:
        use_winograd(detector.network.module, detector.config.winograd)
    return detector
