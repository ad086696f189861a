"""Read and resize images as arrays, without PyTorch; pixels equal those of MMDetection's pipeline.

Images are (H, W, 3) uint8 RGB. ``transforms.py`` has the same for tensors.
"""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from fsaf.config import DataConfig
from fsaf.data.decode import MAX_PIXELS, ImageTooLarge, open_image
from fsaf.data.depth import image_to_8bit
from fsaf.data.exif import is_turned, orientation, turn
from fsaf.errors import DataError


def read_array(
    path: Path | str,
    exif_rotation: bool | None = False,
    max_pixels: int = MAX_PIXELS,
    recorded: tuple[int, int] | None = None,
    otherwise: bool = False,
    cut_short: bool = False,
    content: bytes | None = None,
) -> np.ndarray:
    """Decode an image file to (H, W, 3) uint8 RGB; grey-scale and palette images become RGB.

    exif_rotation: rotate the pixels by the file's EXIF tag, as viewers do; False keeps the stored pixels;
    None rotates them unless ``recorded``, (height, width) of annotations, shows that the stored picture was
    labelled. otherwise: what None means if these sizes do not tell. cut_short: accept damaged files.
    content: the bytes of the file, if they are read already; ``path`` then names them in messages.
    Raises UserError naming the file if it is missing, has more than ``max_pixels`` or does not decode.
    """

    def read(accept: bool) -> np.ndarray:
        with open_image(path, max_pixels, content, accept) as image:
            tag, size = orientation(image), (image.height, image.width)
            rotate = exif_rotation
            if rotate is None:
                rotate = recorded is None or is_turned(recorded, size, tag, otherwise)
            return to_array(turn(image, tag) if rotate else image)

    try:
        return read(False)
    except DataError as error:
        if not cut_short or isinstance(error, ImageTooLarge):
            raise
    return read(True)


def read_file(path: Path | str, data: DataConfig, content: bytes | None = None) -> np.ndarray:
    """Read an image file as ``read_array`` does, with the settings of ``data``."""
    accept = data.on_bad_image == "accept"
    return read_array(path, data.exif_rotation, data.max_pixels, cut_short=accept, content=content)


def to_array(image: Image.Image) -> np.ndarray:
    """Convert a Pillow image to (H, W, 3) uint8 RGB; ``fsaf.data.depth`` does that of more than 8 bits."""
    if image.mode.startswith(("I;16", "I", "F")):
        return np.repeat(image_to_8bit(image)[:, :, None], 3, axis=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # palette transparency: keep the colours
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def resize_array(pixels: np.ndarray, size: tuple[int, int], out: np.ndarray | None = None) -> np.ndarray:
    """Resize (H, W, 3) uint8 to ``size`` (height, width) as OpenCV's INTER_LINEAR, into ``out`` if given.

    Its pixels are on average an eighth of a grey level darker than exact interpolation, which changes a
    detector's scores by up to a few hundredths.
    """
    import cv2  # imported late: it takes longer than all of `fsaf --help`

    contiguous = np.ascontiguousarray(pixels)
    return cv2.resize(contiguous, (size[1], size[0]), dst=out, interpolation=cv2.INTER_LINEAR)
