"""Read and resize images as tensors; pixels equal those of MMDetection's pipeline.

Images are (3, H, W), channels last in memory, as decoders write them and channels-last networks read them.
Permuting is then a view, and images are resized directly into the batch.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fsaf.data.arrays import read_array, resize_array, to_array


def read_image(path: Path | str, *arguments: Any, **options: Any) -> Tensor:
    """Decode an image file to (3, H, W) uint8 RGB; arguments and errors as ``arrays.read_array``."""
    return torch.from_numpy(read_array(path, *arguments, **options)).permute(2, 0, 1)


def to_tensor(image: Image.Image) -> Tensor:
    """Convert a Pillow image to (3, H, W) uint8 RGB; ``fsaf.data.depth`` does that of more than 8 bits."""
    return torch.from_numpy(to_array(image)).permute(2, 0, 1)


def resize(
    image: Tensor, size: tuple[int, int], antialias: bool = False, out: Tensor | None = None
) -> Tensor:
    """Resize image (3, H, W) uint8 bilinearly to ``size`` (height, width), into ``out`` if that is given.

    Without antialias this is OpenCV's INTER_LINEAR (``fsaf.data.arrays.resize_array``).
    """
    if image.shape[1:] == size:
        return image if out is None else out.copy_(image)
    if antialias:
        smooth = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)[
            0
        ]
        return smooth if out is None else out.copy_(smooth)
    target = None if out is None else out.permute(1, 2, 0).numpy()
    resized = resize_array(image.permute(1, 2, 0).numpy(), size, target)
    return torch.from_numpy(resized).permute(2, 0, 1) if out is None else out
