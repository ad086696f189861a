"""Arrays and tensors of pixels of any kind, as uint8 RGB."""

import numpy as np
import torch
from torch import Tensor

from fsaf.data.decode import check_pixels
from fsaf.data.depth import array_to_8bit
from fsaf.errors import DataError

SHAPES = (
    "arrays are (H, W), (H, W, C) or (N, H, W, C), tensors (H, W), (C, H, W) or (N, C, H, W), C 1, 3 or 4"
)


def to_pixels(picture: np.ndarray | Tensor, max_pixels: int) -> Tensor:
    """Return uint8 RGB on the CPU: (3, H, W), or (N, 3, H, W) for an array or tensor of N pictures.

    picture: an array (H, W), (H, W, 1), (H, W, 3), (H, W, 4) or (N, H, W, C), a tensor (H, W), (C, H, W) or
    (N, C, H, W). One channel is grey; a fourth one, transparency, is dropped. uint8 stays. uint16 and floats
    are scaled as ``fsaf.data.depth`` says: floats up to 1 are 0..1, others 0..255. Other integers must be
    0..255. The N pictures have one scale.
    Raises DataError for other shapes and types, no pixels, NaN or infinite and negative values, and for more
    pixels in a picture than ``max_pixels``.
    """
    last = isinstance(picture, np.ndarray)
    shape = list(picture.shape)
    if len(shape) < 2 or 0 in shape:
        raise DataError(f"a picture of shape {shape}: {SHAPES}; none may be 0")
    if len(shape) == 2:
        height, width, channels = *shape, 1
    else:
        height, width, channels = shape[-3:] if last else (*shape[-2:], shape[-3])
    if len(shape) > 4 or channels not in (1, 3, 4):
        raise DataError(f"a picture of shape {shape}: {SHAPES}")
    check_pixels(width, height, max_pixels, "the picture")
    image = _to_8bit(picture)
    if len(shape) == 2:
        return image[None].expand(3, -1, -1)
    image = image.movedim(-1, -3) if last else image
    image = image.narrow(-3, 0, 3) if channels == 4 else image
    return image.expand(*image.shape[:-3], 3, -1, -1) if channels == 1 else image


def _to_8bit(picture: np.ndarray | Tensor) -> Tensor:
    """Return a tensor of the same shape, uint8, on the CPU."""
    if isinstance(picture, Tensor) and picture.dtype is torch.uint8:
        return picture.detach().cpu()
    if isinstance(picture, Tensor):
        half = picture.dtype in (torch.bfloat16, torch.float16)
        values = (picture.float() if half else picture).detach().cpu().resolve_conj().numpy()
    else:
        values = picture
    kind = values.dtype.kind
    if kind == "f":
        if not np.isfinite(values).all():
            raise DataError("a picture has pixels that are NaN or infinite")
        if values.min() < 0:
            raise DataError(
                f"a picture has pixels of {values.min():g}; floats must be 0..1 or 0..255, not normalised"
            )
        values = array_to_8bit(values)
    elif values.dtype.newbyteorder("=") == np.uint16:
        values = array_to_8bit(values)
    elif kind in "ui" and values.dtype != np.uint8:
        if values.min() < 0 or values.max() > 255:
            raise DataError(f"a picture of {values.dtype} has pixels outside 0..255; give uint8 or uint16")
        values = values.astype(np.uint8)
    elif kind not in "ui":
        raise DataError(f"a picture of {values.dtype}: pixels must be integers or floats")
    # PyTorch takes no negative strides, and warns of what cannot be written to.
    return torch.from_numpy(np.require(values, requirements=["C", "W"]))
