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
from fsaf.data.depth import image_to_8bit
from fsaf.data.exif import is_turned, orientation, turn
from fsaf.errors import DataError


def read_image(
    path: Path | str,
    exif_rotation: bool | None = False,
    max_pixels: int = MAX_PIXELS,
    recorded: tuple[int, int] | None = None,
    otherwise: bool = False,
    cut_short: bool = False,
    content: bytes | None = None,
) -> Tensor:
    """Decode an image file to (3, H, W) uint8 RGB; grey-scale and palette images become RGB.

    exif_rotation: rotate the pixels by the file's EXIF tag, as viewers do; False keeps the stored pixels;
    None rotates them unless ``recorded``, (height, width) of annotations, shows that the stored picture was
    labelled. otherwise: what None means if these sizes do not tell. cut_short: accept damaged files.
    content: the bytes of the file, if they are read already; ``path`` then names them in messages.
    Raises UserError naming the file if it is missing, has more than ``max_pixels`` or does not decode.
    """

    def read(accept: bool) -> Tensor:
        with open_image(path, max_pixels, content, accept) as image:
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


def read_file(path: Path | str, data: DataConfig, content: bytes | None = None) -> Tensor:
    """Read an image file as ``read_image`` does, with the settings of ``data``."""
    accept = data.on_bad_image == "accept"
    return read_image(path, data.exif_rotation, data.max_pixels, cut_short=accept, content=content)


def to_tensor(image: Image.Image) -> Tensor:
    """Convert a Pillow image to (3, H, W) uint8 RGB; ``fsaf.data.depth`` does that of more than 8 bits."""
    if image.mode.startswith(("I;16", "I", "F")):
        return torch.from_numpy(np.repeat(image_to_8bit(image)[:, :, None], 3, axis=2)).permute(2, 0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # palette transparency: keep the colours
        pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


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
