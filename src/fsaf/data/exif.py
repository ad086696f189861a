"""EXIF rotation tags: which picture, stored or turned, boxes refer to, and boxes from one to the other.

A camera stores a picture as its sensor saw it, with a tag that says how to turn it. Viewers and most tools to
label pictures show the turned one. Sizes are (height, width).
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

TAG = 0x0112
_SWAPS = (5, 6, 7, 8)
"""Values of the tag that swap height and width."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACK: dict[int, Callable[[float, float, float, float], tuple[float, float, float, float]]] = {
    2: lambda x, y, w, h: (1 - x - w, y, w, h),
    3: lambda x, y, w, h: (1 - x - w, 1 - y - h, w, h),
    4: lambda x, y, w, h: (x, 1 - y - h, w, h),
    5: lambda x, y, w, h: (y, x, h, w),
    6: lambda x, y, w, h: (y, 1 - x - w, h, w),
    7: lambda x, y, w, h: (1 - y - h, 1 - x - w, h, w),
    8: lambda x, y, w, h: (1 - y - h, x, h, w),
}
"""A box of the turned picture, as shares of its size, in the stored picture."""


def orientation(image: Image.Image) -> int:
    """Return the rotation tag of an opened image, 1 to 8; 1 means none. The image is not decoded."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the whole image to look for a tag at its end
    try:
        value = image.getexif().get(TAG, 1)
    except Exception:  # damaged EXIF data raise anything; viewers ignore them
        return 1
    return value if value in _TURNS else 1


def turn(image: Image.Image, tag: int) -> Image.Image:
    """Return the image turned as ``tag`` says."""
    return image.transpose(_TURNS[tag]) if tag in _TURNS else image


def turned_size(size: tuple[int, int], tag: int) -> tuple[int, int]:
    """Return the size of an image of stored ``size`` after turning."""
    return (size[1], size[0]) if tag in _SWAPS else size


def turn_back(xywh: np.ndarray, tag: int, stored: tuple[int, int]) -> np.ndarray:
    """Return boxes (n, 4) x, y, width, height of the turned picture in pixels of the stored one."""
    if tag not in _BACK:
        return xywh
    height, width = turned_size(stored, tag)
    shares = (xywh / np.array([width, height, width, height], np.float64)).T
    back = np.stack(_BACK[tag](*shares), 1)
    return back * np.array([stored[1], stored[0], stored[1], stored[0]], np.float64)


def same_ratio(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Return True if one size is the other, scaled: their ratios are equal up to a pixel."""
    (h, w), (height, width) = one, other
    return abs(h * width - w * height) <= max(height, width, h, w)


def is_turned(recorded: tuple[int, int], stored: tuple[int, int], tag: int, otherwise: bool) -> bool:
    """Return True if boxes refer to the rotated picture, judged by the size that the annotations record.

    otherwise: the answer if sizes do not tell, as for a tag that keeps them, or a square.
    """
    if tag not in _TURNS:
        return False
    turned = same_ratio(recorded, turned_size(stored, tag))
    return turned if turned != same_ratio(recorded, stored) else otherwise
