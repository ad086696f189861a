"""Read a picture of any kind, and make batches of its views for the network."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeGuard, Union

import numpy as np
from PIL import Image

from fsaf.config import DataConfig, PredictConfig
from fsaf.data.arrays import read_file, to_array
from fsaf.data.decode import check_pixels
from fsaf.detection.fetch import fetch, is_url
from fsaf.detection.pixels import is_tensor, to_pixels
from fsaf.detection.views import View, plan_views, take_view
from fsaf.errors import DataError
from fsaf.text import printable

if TYPE_CHECKING:
    from torch import Tensor

Picture: TypeAlias = Union[
    str, PathLike[str], bytes, bytearray, memoryview, BinaryIO, Image.Image, np.ndarray, "Tensor"
]
"""A path or http address; the content of an image file, or such a file opened in binary mode; a Pillow image;
an array (H, W), (H, W, C), or a tensor (H, W), (C, H, W), with C 1, 3 (RGB) or 4: see ``to_pixels``."""

_ONE = (str, PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray)
_PICTURES = "a picture must be a path, an address, bytes, a file, a Pillow image, an array or a tensor"


@dataclass(kw_only=True)
class Opened:
    """The pixels of a picture and where they are from."""

    image: np.ndarray
    """(H, W, 3) uint8 RGB."""
    path: str | None
    """Path of the file; None for a picture from memory."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(kw_only=True)
class Prepared:
    """A view of a picture, resized for the network."""

    image: np.ndarray
    """(h, w, 3) uint8 RGB, without padding."""
    view: View
    original: tuple[int, int]
    """Height and width of the picture."""
    path: str | None
    """Path of the file; None for a picture from memory."""


def split_pictures(images: Any, max_pixels: int) -> tuple[Iterable[Picture], bool]:
    """Return pictures one by one, and True if ``images`` is one picture.

    An array or tensor of N pictures is N pictures. Raises DataError if ``images`` is neither a picture nor
    several.
    """
    if _is_pixels(images) and images.ndim == 4:
        return list(to_pixels(images, max_pixels)), False
    if isinstance(images, _ONE) or is_tensor(images) or hasattr(images, "read"):
        return [images], True
    if isinstance(images, Iterable) and not isinstance(images, Mapping):
        return images, False
    raise DataError(f"{_PICTURES}, or several of them, not {type(images).__name__}")


def open_picture(picture: Picture, data: DataConfig) -> Opened:
    """Read a picture. Raises UserError if it is not a picture."""
    if is_url(picture):
        url = str(picture)
        return Opened(image=read_file(url, data, fetch(url)), path=url)
    if isinstance(picture, (str, PathLike)):
        return Opened(image=read_file(Path(picture), data), path=str(picture))
    if isinstance(picture, Image.Image):
        return Opened(image=_decode(picture, data.max_pixels), path=None)
    if _is_pixels(picture):
        image = to_pixels(picture, data.max_pixels)
        if image.ndim != 3:
            raise DataError(f"a picture of shape {list(picture.shape)}: is several; give them one by one")
        return Opened(image=image, path=None)
    if hasattr(picture, "read"):
        picture = picture.read()
        if not isinstance(picture, bytes):
            raise DataError("a file of a picture must be opened in binary mode: open(name, 'rb')")
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return Opened(image=read_file("the picture", data, bytes(picture)), path=None)
    raise DataError(f"{_PICTURES}, not {type(picture).__name__}")


def prepare_view(opened: Opened, view: View, antialias: bool) -> Prepared:
    """Return a view of a picture, resized for the network."""
    image = take_view(opened.image, view, antialias)
    return Prepared(image=image, view=view, original=opened.size, path=opened.path)


def prepare(picture: Picture, data: DataConfig) -> Prepared:
    """Read a picture and resize all of it. Raises UserError if it is not a picture."""
    opened = open_picture(picture, data)
    (view,) = plan_views(opened.size, data, PredictConfig())
    return prepare_view(opened, view, data.antialias)


def stack(pictures: Sequence[Prepared]) -> tuple[np.ndarray, np.ndarray]:
    """Stack pictures of one batch shape: images (n, 3, H, W) uint8, zero-padded, and sizes (n, 2) int64.

    The images are channels last in memory, as decoders write them and channels-last networks read them.
    """
    images = np.zeros((len(pictures), *pictures[0].view.shape, 3), np.uint8)
    for canvas, picture in zip(images, pictures, strict=True):
        canvas[: picture.image.shape[0], : picture.image.shape[1]] = picture.image
    return images.transpose(0, 3, 1, 2), np.array([picture.image.shape[:2] for picture in pictures], np.int64)


def _is_pixels(picture: Any) -> "TypeGuard[np.ndarray | Tensor]":
    return isinstance(picture, np.ndarray) or is_tensor(picture)


def _decode(image: Image.Image, max_pixels: int) -> np.ndarray:
    """Return a Pillow image of any mode as (H, W, 3) uint8 RGB. Raises DataError if it does not decode."""
    check_pixels(image.width, image.height, max_pixels, "the picture")  # it may not be decoded yet
    try:
        return to_array(image)
    except Exception as error:  # decoders raise anything over damaged files
        raise DataError(f"the picture does not decode ({printable(error):.200})") from error
