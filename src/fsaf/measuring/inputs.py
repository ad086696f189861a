"""Random images, boxes and classes of a given size: speed does not depend on their content."""

import torch
from torch import Tensor

from fsaf.config import DataConfig
from fsaf.config.data import MULTIPLE
from fsaf.data.batch import Boxes
from fsaf.data.records import Classes
from fsaf.data.shapes import padded_shape


def random_batch(
    batch: int, height: int, width: int, boxes: int, classes: int, seed: int = 0
) -> tuple[Tensor, Boxes]:
    """Return images (B, 3, H, W) uint8 without padding, and ``boxes`` boxes of at least 8 pixels in each."""
    random = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, height, width, 3), generator=random, dtype=torch.uint8)
    size = torch.tensor([width, height], dtype=torch.float32)
    # More small boxes than large ones, as in photographs.
    sides = 8 + torch.rand(batch, boxes, 2, generator=random) ** 3 * (size - 8)
    corner = torch.rand(batch, boxes, 2, generator=random) * (size - sides)
    real = torch.ones(batch, boxes, dtype=torch.bool)
    return images.permute(0, 3, 1, 2), Boxes(
        torch.cat([corner, corner + sides], 2),
        torch.randint(0, classes, (batch, boxes), generator=random),
        real,
        torch.zeros_like(real),
        torch.tensor([[height, width]] * batch),
    )


def random_classes(count: int) -> Classes:
    """Return ``count`` classes with made-up names."""
    return Classes(names=tuple(f"class {i}" for i in range(count)), ids=tuple(range(1, count + 1)))


def largest_shape(data: DataConfig) -> tuple[int, int]:
    """Return the batch shape (H, W) with most pixels that a recipe can produce."""
    if data.pad is None and data.shapes:
        return max(data.shapes, key=lambda shape: shape[0] * shape[1])
    return padded_shape([(data.short_side, data.long_side)], data.pad or MULTIPLE)
