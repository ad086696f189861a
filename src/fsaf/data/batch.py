"""A batch: what one training or prediction step takes in, with fixed shapes.

Shapes: B batch, G boxes of an image after padding, H and W of the padded images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fsaf.boxes import area


class Boxes(NamedTuple):
    """The boxes of a batch, padded to one count; pixels of the resized images."""

    xyxy: Tensor
    """(B, G, 4) float32; zeros where padded."""
    labels: Tensor
    """(B, G) int64, 0..C-1; 0 where padded."""
    valid: Tensor
    """(B, G) bool: a real box, not padding."""
    crowd: Tensor
    """(B, G) bool: a crowd region, which is neither object nor background."""
    sizes: Tensor
    """(B, 2) int64: height and width of each image inside the padding; 0, 0 for a blank row of the batch."""

    def to(self, device: torch.device) -> "Boxes":
        """The same boxes on ``device``."""
        return Boxes(*(tensor.to(device, non_blocking=True) for tensor in self))


@dataclass(kw_only=True)
class Batch:
    """Images and boxes, and on the host what leads back to the data set."""

    images: Tensor
    """(B, 3, H, W) uint8 RGB in channels-last layout, zero where padded."""
    boxes: Boxes
    ids: list[int]
    """Image ids of the real rows; the rows after them are blank."""
    original_sizes: list[tuple[int, int]]
    """Height and width in the files, of the real rows."""
    cut: int = 0
    """Boxes left out because an image has more than G."""
    seconds: float = 0.0
    """What reading and transforming took, summed over the images."""

    def pin_memory(self) -> "Batch":
        """Called by the data loader; copies to a device can then run alongside the step."""
        self.images = self.images.pin_memory()
        self.boxes = Boxes(*(tensor.pin_memory() for tensor in self.boxes))
        return self


def blank_images(count: int, height: int, width: int) -> Tensor:
    """Zeros (B, 3, H, W) uint8, channels last in memory."""
    # NumPy's zeros come from the system as they are, PyTorch's are written.
    return torch.from_numpy(np.zeros((count, height, width, 3), np.uint8)).permute(0, 3, 1, 2)


def stack_images(images: Sequence[Tensor], height: int, width: int) -> Tensor:
    """Images (3, h, w) uint8 as (B, 3, height, width), channels last in memory, padded with zeros."""
    batch = blank_images(len(images), height, width)
    for canvas, image in zip(batch, images, strict=True):
        canvas[:, : image.shape[1], : image.shape[2]] = image
    return batch


def pad_boxes(
    xyxy: list[Tensor], labels: list[Tensor], crowd: list[Tensor], sizes: list[tuple[int, int]], count: int
) -> tuple[Boxes, int]:
    """Stack the boxes of B images, each padded or cut to ``count``.

    xyxy: (n, 4), labels: (n,) int64, crowd: (n,) bool of each image. sizes: (height, width) of each image.
    A cut keeps real boxes before crowd regions and larger ones before smaller. Returns the boxes and how many
    were cut.
    """
    batch = len(xyxy)
    out = Boxes(
        torch.zeros(batch, count, 4),
        torch.zeros(batch, count, dtype=torch.int64),
        torch.zeros(batch, count, dtype=torch.bool),
        torch.zeros(batch, count, dtype=torch.bool),
        torch.tensor(sizes, dtype=torch.int64).reshape(batch, 2),
    )
    cut = 0
    for i in range(batch):
        boxes, label, is_crowd = xyxy[i], labels[i], crowd[i]
        if len(boxes) > count:
            cut += len(boxes) - count
            first = torch.argsort(
                torch.where(is_crowd, -1.0, area(boxes.unbind(1))), descending=True, stable=True
            )[:count]
            keep = torch.sort(first).values
            boxes, label, is_crowd = boxes[keep], label[keep], is_crowd[keep]
        n = len(boxes)
        out.xyxy[i, :n], out.labels[i, :n], out.crowd[i, :n] = boxes, label, is_crowd
        out.valid[i, :n] = True
    return out, cut
