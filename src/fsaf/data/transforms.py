"""Reading and resizing images, with the pixels that MMDetection's pipeline gives."""

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
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)  # a view: resizing is faster in this layout


def resized_size(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """Height and width after scaling, ratio kept, until one of the two limits is met (mmcv.rescale_size)."""
    scale = min(long_side / max(height, width), short_side / min(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize(image: Tensor, size: tuple[int, int], antialias: bool = False) -> Tensor:
    """Bilinear resize of (3, H, W) uint8 to ``size`` (height, width).

    Without antialias the pixels are exactly OpenCV's INTER_LINEAR's. They are an eighth of a grey level
    darker than exact interpolation on average, which moves a detector's scores by up to a few hundredths.
    """
    if image.shape[1:] == size:
        return image
    if antialias:
        return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    planes = np.ascontiguousarray(image.numpy())
    left, right, left_weight, right_weight = _taps(planes.shape[2], size[1])
    upper, lower, upper_weight, lower_weight = _taps(planes.shape[1], size[0])
    out = np.empty((planes.shape[0], *size), np.uint8)
    for plane, resized in zip(planes, out, strict=True):  # one at a time stays in the cache
        rows = plane.take(left, 1) * left_weight
        rows += plane.take(right, 1) * right_weight
        rows >>= 4
        total = rows.take(upper, 0)
        total *= upper_weight[:, None]
        total >>= 16
        below = rows.take(lower, 0)
        below *= lower_weight[:, None]
        below >>= 16
        total += below
        total += 2
        total >>= 2
        resized[:] = total
    return torch.from_numpy(out)


def _taps(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The two source positions of each new pixel, and their weights in OpenCV's fixed point (sum 2048)."""
    position = ((np.arange(new_size) + 0.5) * (size / new_size) - 0.5).astype(np.float32)
    first = np.floor(position)
    share = position - first
    weight = np.rint(share * np.float32(2048)).astype(np.int32)
    index = first.astype(np.int64)
    return index.clip(0, size - 1), (index + 1).clip(0, size - 1), 2048 - weight, weight


def flip_horizontal(image: Tensor, boxes: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Mirror (3, H, W) left to right, and its (n, 4) xyxy boxes with it."""
    width = image.shape[2]
    return image.flip(2), np.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), 1)


def flip_vertical(image: Tensor, boxes: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Mirror (3, H, W) upside down, and its (n, 4) xyxy boxes with it."""
    height = image.shape[1]
    return image.flip(1), np.stack((boxes[:, 0], height - boxes[:, 3], boxes[:, 2], height - boxes[:, 1]), 1)
