"""The network as an exported file computes it.

Shapes: N images, C classes, P locations of all levels, M max_detections. images are (N, 3, H, W), sizes
(N, 2): height and width of each image inside its padding. Without sizes all images fill H x W.
"""

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

from fsaf.config import PredictConfig
from fsaf.detection.file_info import Outputs
from fsaf.detection.postprocess import postprocess
from fsaf.model.detector import FSAF
from fsaf.model.outputs import RawOutputs
from fsaf.model.points import decode_boxes


class WithDetections(nn.Module):
    """Compute boxes (N, M, 4), scores (N, M) and labels (N, M): decoding and suppression inside."""

    size: Tensor

    def __init__(self, model: FSAF, settings: PredictConfig, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.model, self.settings = model, settings
        self.register_buffer("size", torch.tensor([size or (0, 0)]))  # free sizes come with the images

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes, scores and labels."""
        outputs = self.model(images, sizes)
        limits = self.size.expand(images.shape[0], 2) if sizes is None else sizes
        found = postprocess(outputs, limits, self.settings)
        return found.boxes_bm4, found.scores_bm, found.labels_bm


class WithRawOutputs(nn.Module):
    """Compute logits (N, C, P), and boxes (N, P, 4) decoded but not clipped."""

    def __init__(self, model: FSAF) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return logits and boxes."""
        outputs: RawOutputs = self.model(images, sizes)
        assert outputs.free is not None
        logits_bcp, distances_b4p, points = outputs.free.flat()
        return logits_bcp, decode_boxes(distances_b4p, points).transpose(1, 2)


class WithHead(nn.Module):
    """Compute what the head computes, all levels in one: logits (N, C, P) and distances (N, 4, P).

    Of a branch with anchors (N, 9 * C, P) and (N, 9 * 4, P), after those.
    """

    def __init__(self, model: FSAF) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return logits and boxes of each branch that the network has."""
        outputs: RawOutputs = self.model(images, sizes)
        parts = [levels for branch in outputs if branch is not None for levels in branch]
        return tuple(torch.cat([x.flatten(2) for x in levels], 2) for levels in parts)


class ConstantPadding(nn.Module):
    """A convolution of timm with TensorFlow's padding, which depends on the size of its input.

    For inputs whose sides are multiples of the stride, as all are in images padded to multiples of 32, it is
    the same for every size. Traced with free sizes, the general formula takes an hour and more.
    """

    def __init__(self, convolution: Conv2dSame) -> None:
        super().__init__()
        self.convolution = convolution
        wide = zip(convolution.kernel_size, convolution.dilation, convolution.stride, strict=True)
        rows, columns = (max(0, dilation * (kernel - 1) + 1 - stride) for kernel, dilation, stride in wide)
        self.padding = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Pad and convolve."""
        own = self.convolution
        x = F.pad(x, self.padding)
        return F.conv2d(x, own.weight, own.bias, own.stride, 0, own.dilation, own.groups)


def use_constant_padding(network: nn.Module) -> None:
    """Replace convolutions with TensorFlow's padding, in place, by ``ConstantPadding``."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, Conv2dSame):
                setattr(module, name, ConstantPadding(child))


def make_module(
    model: FSAF, outputs: Outputs, settings: PredictConfig, size: tuple[int, int] | None
) -> WithDetections | WithRawOutputs | WithHead:
    """Return the network with the outputs asked for."""
    if outputs == "detections":
        return WithDetections(model, settings, size)
    return WithRawOutputs(model) if outputs == "raw" else WithHead(model)
