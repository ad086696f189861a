"""Arrays and tensors of pixels of any kind, as arrays of uint8 RGB."""

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from fsaf.data.decode import check_pixels
from fsaf.data.depth import array_to_8bit
from fsaf.errors import DataError

if TYPE_CHECKING:  # an exported file needs no PyTorch
    from torch import Tensor

SHAPES = (
    "arrays are (H, W), (H, W, C) or (N, H, W, C), tensors (H, W), (C, H, W) or (N, C, H, W), C 1, 3 or 4"
)


def is_tensor(value: Any) -> "TypeGuard[Tensor]":
    """Return True for a tensor of PyTorch, without importing it: before that there are no tensors."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_pixels(picture: "np.ndarray | Tensor", max_pixels: int) -> np.ndarray:
    """Return uint8 RGB: (H, W, 3), or (N, H, W, 3) for an array or tensor of N pictures.

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
        image = image[:, :, None]
    elif not last:
        image = np.moveaxis(image, -3, -1)
    return np.broadcast_to(image, (*image.shape[:-1], 3)) if channels == 1 else image[..., :3]


def _to_8bit(picture: "np.ndarray | Tensor") -> np.ndarray:
    """Return an array of the same shape, uint8."""
    if is_tensor(picture):
        half = picture.dtype.is_floating_point and picture.dtype.itemsize == 2
        values = (picture.float() if half else picture).detach().cpu().resolve_conj().numpy()
    else:
        values = np.asarray(picture)
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
    return values
