"""Open image files of any origin: allowed formats, a limit on pixels, one clear error per file."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from PIL import Image

from fsaf.errors import UserError
from fsaf.text import printable

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Suffixes (lower case) of the files that a search of a folder takes for images."""

MAX_PIXELS = 100_000_000
"""Default of ``data.max_pixels``."""

# Recognised by content, not by name. EPS would run another program, TGA has no signature.
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
_ORIENTATION = 0x0112

_pillow_limit = threading.Lock()


class ImageTooLarge(UserError):
    """An image has more than ``data.max_pixels`` according to its header."""


@contextmanager
def open_image(path: Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Open an image and read its header; errors in the body (load, convert) are reported like errors here.

    Raises UserError, naming the file, if it is missing, larger than ``max_pixels`` (before it is decoded), or
    does not decode.
    """
    try:
        with _open(path, max_pixels) as image:
            check_pixels(image.width, image.height, max_pixels, path)
            yield image
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such image") from error
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"{path}: over twice data.max_pixels = {max_pixels:,}") from error
    except Exception as error:  # decoders raise anything over damaged files: struct.error, IndexError, ...
        raise UserError(f"{path}: does not decode as an image ({printable(error):.200})") from error


def is_file(path: Path) -> bool:
    """Return True if the file exists; False also for names that the file system does not accept."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def check_pixels(width: int, height: int, max_pixels: int, what: object) -> None:
    """Raise ImageTooLarge, naming ``what``, if an image has more than ``max_pixels``."""
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"{what}: {width} x {height} is more than data.max_pixels = {max_pixels:,}; "
            "raise that if the file can be trusted"
        )


def header_size(path: Path, max_pixels: int = MAX_PIXELS, exif_rotation: bool = False) -> tuple[int, int]:
    """Return height and width from an image's header, after rotation by its EXIF tag if ``exif_rotation``.

    Raises UserError as ``open_image`` does.
    """
    with open_image(path, max_pixels) as image:
        turned = exif_rotation and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


def _open(path: Path, max_pixels: int) -> Image.Image:
    # Pillow's limit is global to the process; replace it by the setting, which also covers tiles.
    with _pillow_limit, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            return Image.open(path, formats=_formats())
        finally:
            Image.MAX_IMAGE_PIXELS = before


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
