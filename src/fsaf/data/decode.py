"""Open image files of any origin: allowed formats, a limit on pixels, one clear error per file."""

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageFile

from fsaf.data.exif import orientation
from fsaf.errors import DataError, UserError
from fsaf.text import printable

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Suffixes (lower case) of the files that a search of a folder takes for images without looking inside."""

MAX_PIXELS = 100_000_000
"""Default of ``data.max_pixels``."""

# Recognised by content, not by name. EPS would run another program, TGA has no signature.
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
_SIGNATURES = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|BM.{4}\0\0\0\0|RIFF.{4}WEBP|II[*+]\0|MM\0[*+]|P[1-6]\s"
    rb"|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51|.{4}ftypavi[fs]",
    re.DOTALL,
)
"""First bytes of the files that are opened."""

_pillow_setting = threading.Lock()


class ImageTooLarge(DataError):
    """An image has more than ``data.max_pixels`` according to its header."""


@contextmanager
def open_image(
    path: Path | str, max_pixels: int = MAX_PIXELS, content: bytes | None = None, cut_short: bool = False
) -> Iterator[Image.Image]:
    """Open an image and read its header; errors in the body (load, convert) are reported like errors here.

    content: the bytes of the file, if they are read already; ``path`` then only names them.
    cut_short: decode what there is of a file that is cut short; the rest is grey or black.
    Raises UserError, naming the file, if it is missing, larger than ``max_pixels`` (before it is decoded), or
    does not decode.
    """
    try:
        with _open(Path(path) if content is None else BytesIO(content), max_pixels) as image:
            check_pixels(image.width, image.height, max_pixels, path)
            if cut_short:
                with _cut_short():
                    image.load()
            yield image
    except UserError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such image") from error
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"{path}: over twice data.max_pixels = {max_pixels:,}") from error
    except Exception as error:  # decoders raise anything over damaged files: struct.error, IndexError, ...
        text = re.sub(r" <_io\.BytesIO.*?>", "", printable(error))
        raise DataError(f"{path}: does not decode as an image ({text:.200})") from error


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


class Header(NamedTuple):
    """Contents of the header of an image file."""

    size: tuple[int, int]
    """Height and width of the stored picture."""
    tag: int
    """EXIF rotation tag, 1 without one."""


def read_header(path: Path, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the header of an image. Raises UserError as ``open_image`` does."""
    with open_image(path, max_pixels) as image:
        return Header((image.height, image.width), orientation(image))


def header_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return height and width from an image's header. Raises UserError as ``open_image`` does."""
    return read_header(path, max_pixels).size


def begins_like_image(head: bytes) -> bool:
    """Return True if the first 16 bytes of a file are those of a format that is opened."""
    return _SIGNATURES.match(head) is not None


def looks_like_image(path: Path) -> bool:
    """Return True if the file begins like a supported image format; its name does not matter."""
    try:
        with path.open("rb") as file:
            return begins_like_image(file.read(16))
    except (OSError, ValueError):
        return False


def fault_kind(path: Path, error: UserError, skip: bool = False) -> str:
    """Return the kind of fault of an image that ``open_image`` refused. skip: those that do not decode go."""
    if not is_file(path):
        return "image-missing"
    if isinstance(error, ImageTooLarge):
        return "image-too-large"
    return "image-skipped" if skip else "image-unreadable"


@contextmanager
def _cut_short() -> Iterator[None]:
    """Have Pillow decode files that are cut short; its setting is global to the process."""
    with _pillow_setting:
        before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _open(source: Path | BytesIO, max_pixels: int) -> Image.Image:
    # Pillow's limit is global to the process; replace it by the setting, which also covers tiles.
    with _pillow_setting, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            return Image.open(source, formats=_formats())
        finally:
            Image.MAX_IMAGE_PIXELS = before


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
