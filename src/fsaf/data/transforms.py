"""Read and resize images; pixels equal those of MMDetection's pipeline.

Images are (3, H, W), channels last in memory, as decoders write them and channels-last networks read them.
Permuting is then a view, and images are resized directly into the batch.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from fsaf.config import DataConfig
from fsaf.data.decode import MAX_PIXELS, ImageTooLarge, open_image
from fsaf.data.exif import is_turned, orientation, turn
from fsaf.errors import DataError

STRIP = 1_000_000
"""Pixels that are converted to 8 bits at a time."""


def read_image(
    path: Path,
    exif_rotation: bool | None = False,
    max_pixels: int = MAX_PIXELS,
    recorded: tuple[int, int] | None = None,
    otherwise: bool = False,
    cut_short: bool = False,
) -> Tensor:
    """Decode an image file to (3, H, W) uint8 RGB; grey-scale and palette images become RGB.

    exif_rotation: rotate the pixels by the file's EXIF tag, as viewers do; False keeps the stored pixels;
    None rotates them unless ``recorded``, (height, width) of annotations, shows that the stored picture was
    labelled. otherwise: what None means if these sizes do not tell. cut_short: accept damaged files.
    Raises UserError naming the file if it is missing, has more than ``max_pixels`` or does not decode.
    """

    def read(accept: bool) -> Tensor:
        with open_image(path, max_pixels, cut_short=accept) as image:
            tag, size = orientation(image), (image.height, image.width)
            rotate = exif_rotation
            if rotate is None:
                rotate = recorded is None or is_turned(recorded, size, tag, otherwise)
            return to_tensor(turn(image, tag) if rotate else image)

    try:
        return read(False)
    except DataError as error:
        if not cut_short or isinstance(error, ImageTooLarge):
            raise
    return read(True)


def read_file(path: Path, data: DataConfig) -> Tensor:
    """Read an image file as ``read_image`` does, with the settings of ``data``."""
    accept = data.on_bad_image == "accept"
    return read_image(path, data.exif_rotation, data.max_pixels, cut_short=accept)


def to_tensor(image: Image.Image) -> Tensor:
    """Convert a Pillow image to (3, H, W) uint8 RGB."""
    if image.mode.startswith(("I;16", "I", "F")):
        return torch.from_numpy(np.repeat(_to_grey(image)[:, :, None], 3, axis=2)).permute(2, 0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # palette transparency: keep the colours
        pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _to_grey(image: Image.Image) -> np.ndarray:
    """Scale 16-bit, 32-bit or float grey to (H, W) uint8, as viewers do; Pillow would clip it.

    Floats that are not finite or below 0 become 0. Rows are converted in strips: the whole image in float64
    would take many times the memory of its 8 bits.
    """
    image.load()
    height = max(1, STRIP // image.width)
    strips = [
        (0, top, image.width, min(top + height, image.height)) for top in range(0, image.height, height)
    ]
    highest = max(_finite(image, strip).max() for strip in strips)
    grey = np.empty((image.height, image.width), np.uint8)
    for strip in strips:
        grey[strip[1] : strip[3]] = _finite(image, strip) * (255 / max(highest, 1))
    return grey


def _finite(image: Image.Image, strip: tuple[int, int, int, int]) -> np.ndarray:
    values = np.asarray(image.crop(strip), np.float64)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0).clip(0)


def resize(
    image: Tensor, size: tuple[int, int], antialias: bool = False, out: Tensor | None = None
) -> Tensor:
    """Resize image (3, H, W) uint8 bilinearly to ``size`` (height, width), into ``out`` if that is given.

    Without antialias this is OpenCV's INTER_LINEAR. Its pixels are on average an eighth of a grey level
    darker than exact interpolation, which changes a detector's scores by up to a few hundredths.
    """
    if image.shape[1:] == size:
        return image if out is None else out.copy_(image)
    if antialias:
        smooth = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)[
            0
        ]
        return smooth if out is None else out.copy_(smooth)
    import cv2  # imported late: it takes longer than all of `fsaf --help`

    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    target = None if out is None else out.permute(1, 2, 0).numpy()
    resized = cv2.resize(pixels, (size[1], size[0]), dst=target, interpolation=cv2.INTER_LINEAR)
    return torch.from_numpy(resized).permute(2, 0, 1) if out is None else out
