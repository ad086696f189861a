"""Reading and resizing images, with the pixels that MMDetection's pipeline gives.

Images are (3, H, W) with the colours of a pixel side by side in memory, as decoders give them and as networks
in channels-last layout take them: permuting is a view, and pixels are resized into the batch.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from fsaf.data.decode import MAX_PIXELS, open_image


def read_image(path: Path, exif_rotation: bool = False, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode an image file to (3, H, W) uint8 RGB; grey-scale and palette images become RGB.

    exif_rotation: turn the pixels as the file's EXIF tag says; off, boxes refer to the stored pixels.
    Raises UserError naming the file where it is missing, has more than ``max_pixels`` or does not decode.
    """
    with open_image(path, max_pixels) as image:
        return to_tensor(ImageOps.exif_transpose(image) if exif_rotation else image)


def to_tensor(image: Image.Image) -> Tensor:
    """A Pillow image as (3, H, W) uint8 RGB."""
    if image.mode.startswith(("I;16", "I", "F")):
        # Pillow clips these to 0..255; scale 16-bit grey instead, as viewers do. Floats may be anything.
        values = np.nan_to_num(np.asarray(image, np.float64), nan=0.0, posinf=0.0, neginf=0.0).clip(0)
        image = Image.fromarray((values * (255 / max(values.max(), 1))).astype(np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # palette transparency: the colours under it are what we want
        pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def resized_size(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """Height and width after scaling, ratio kept, until one of the two limits is met (mmcv.rescale_size)."""
    scale = min(long_side / max(height, width), short_side / min(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize(
    image: Tensor, size: tuple[int, int], antialias: bool = False, out: Tensor | None = None
) -> Tensor:
    """Bilinear resize of (3, H, W) uint8 to ``size`` (height, width), into ``out`` where that is given.

    Without antialias OpenCV's INTER_LINEAR is used. Its pixels are an eighth of a grey level
    darker than exact interpolation on average, which moves a detector's scores by up to a few hundredths.
    """
    if image.shape[1:] == size:
        return image if out is None else out.copy_(image)
    if antialias:
        smooth = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)[
            0
        ]
        return smooth if out is None else out.copy_(smooth)
    import cv2  # here, since importing it takes longer than `fsaf --help`

    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    target = None if out is None else out.permute(1, 2, 0).numpy()
    resized = cv2.resize(pixels, (size[1], size[0]), dst=target, interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(resized).permute(2, 0, 1) if out is None else out
