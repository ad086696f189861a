"""A batch: the input of one training or prediction step, with fixed shapes.

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
    """Boxes of a batch in pixels of the resized images, padded to the same number for each image."""

    xyxy: Tensor
    """(B, G, 4) float32; zeros where padded."""
    labels: Tensor
    """(B, G) int64, 0..C-1; 0 where padded."""
    valid: Tensor
    """(B, G) bool: False for padding."""
    crowd: Tensor
    """(B, G) bool: an ignore (crowd) region, neither object nor background."""
    sizes: Tensor
    """(B, 2) int64: height and width of each image without its padding; 0, 0 for a blank row."""

    def to(self, device: torch.device) -> "Boxes":
        """Return the same boxes on ``device``."""
        return Boxes(*(tensor.to(device, non_blocking=True) for tensor in self))


@dataclass(kw_only=True)
class Batch:
    """Images and boxes of a training or evaluation step, with image ids and sizes for the host."""

    images: Tensor
    """(B, 3, H, W) uint8 RGB in channels-last layout, zero where padded."""
    boxes: Boxes
    ids: list[int]
    """Image ids of the real rows; the rows after them are blank."""
    original_sizes: list[tuple[int, int]]
    """Height and width of the image files, of the real rows."""
    cut: int = 0
    """Number of boxes dropped because their image has more than G."""
    seconds: float = 0.0
    """Time to read and transform, summed over the images."""

    def pin_memory(self) -> "Batch":
        """Pin the tensors, so that copying to a device can overlap with a step; the loader calls this."""
        self.images = self.images.pin_memory()
        self.boxes = Boxes(*(tensor.pin_memory() for tensor in self.boxes))
        return self


def blank_images(count: int, height: int, width: int) -> Tensor:
    """Return zeros (B, 3, H, W) uint8, channels last in memory."""
    # NumPy takes zeroed pages from the system; PyTorch would write every zero.
    return torch.from_numpy(np.zeros((count, height, width, 3), np.uint8)).permute(0, 3, 1, 2)


def stack_images(images: Sequence[Tensor], height: int, width: int) -> Tensor:
    """Stack images (3, h, w) uint8 to (B, 3, height, width), channels last, padded with zeros."""
    batch = blank_images(len(images), height, width)
    for canvas, image in zip(batch, images, strict=True):
        canvas[:, : image.shape[1], : image.shape[2]] = image
    return batch


def pad_boxes(
    xyxy: list[Tensor], labels: list[Tensor], crowd: list[Tensor], sizes: list[tuple[int, int]], count: int
) -> tuple[Boxes, int]:
    """Stack the boxes of B images, each padded or cut to ``count``; return them and the number cut.

    xyxy: (n, 4), labels: (n,) int64, crowd: (n,) bool of each image. sizes: (height, width) of each image.
    Crowd regions are cut first, then small boxes before large ones.
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
