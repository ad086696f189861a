"""Read a picture of any kind, and make batches of its views for the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fsaf.config import DataConfig, PredictConfig
from fsaf.data.batch import stack_images
from fsaf.data.decode import check_pixels
from fsaf.data.transforms import read_file, to_tensor
from fsaf.detection.views import View, plan_views, take_view
from fsaf.errors import DataError

Picture: TypeAlias = str | PathLike[str] | Image.Image | np.ndarray | Tensor
"""A path; a Pillow image; an array (H, W, 3) RGB or (H, W) grey, uint8; a tensor (3, H, W) RGB, uint8."""


@dataclass(kw_only=True)
class Opened:
    """The pixels of a picture and where they are from."""

    image: Tensor
    """(3, H, W) uint8 RGB."""
    path: str | None
    """Path of the file; None for a picture from memory."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[1], self.image.shape[2]


@dataclass(kw_only=True)
class Prepared:
    """A view of a picture, resized for the network."""

    image: Tensor
    """(3, h, w) uint8 RGB, without padding."""
    view: View
    original: tuple[int, int]
    """Height and width of the picture."""
    path: str | None
    """Path of the file; None for a picture from memory."""


def open_picture(picture: Picture, data: DataConfig) -> Opened:
    """Read a picture. Raises UserError if it is not a picture."""
    if isinstance(picture, (str, PathLike)):
        image = read_file(Path(picture), data)
        return Opened(image=image, path=str(picture))
    return Opened(image=_as_tensor(picture, data.max_pixels), path=None)


def prepare_view(opened: Opened, view: View, antialias: bool) -> Prepared:
    """Return a view of a picture, resized for the network."""
    image = take_view(opened.image, view, antialias)
    return Prepared(image=image, view=view, original=opened.size, path=opened.path)


def prepare(picture: Picture, data: DataConfig) -> Prepared:
    """Read a picture and resize all of it. Raises UserError if it is not a picture."""
    opened = open_picture(picture, data)
    (view,) = plan_views(opened.size, data, PredictConfig())
    return prepare_view(opened, view, data.antialias)


def stack(pictures: Sequence[Prepared]) -> tuple[Tensor, Tensor]:
    """Stack pictures of one batch shape: images (n, 3, H, W) uint8, zero-padded, and sizes (n, 2)."""
    images = stack_images([picture.image for picture in pictures], *pictures[0].view.shape)
    return images, torch.tensor([picture.image.shape[1:] for picture in pictures])


def _as_tensor(picture: Any, max_pixels: int) -> Tensor:
    """Return (3, H, W) uint8 RGB. Raises UserError if it is not a picture, or too large."""
    if isinstance(picture, Image.Image):
        check_pixels(picture.width, picture.height, max_pixels, "the picture")  # it may not be decoded yet
        return to_tensor(picture)
    image = picture
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8:
        # PyTorch takes no negative strides, and warns of what cannot be written to.
        image = torch.from_numpy(np.require(picture, requirements=["C", "W"]))
    if not isinstance(image, Tensor) or image.dtype is not torch.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise DataError(f"a picture must be a path, a Pillow image, or uint8 pixels 0..255, not {kind}")
    if image.dim() == 2:
        image = image[None].expand(3, -1, -1)
    elif isinstance(picture, np.ndarray) and image.dim() == 3:
        image = image.permute(2, 0, 1)
    if image.dim() != 3 or image.shape[0] != 3 or 0 in image.shape:
        raise DataError(
            f"a picture of shape {list(picture.shape)}: arrays are (H, W, 3) RGB or (H, W), tensors (3, H, W)"
        )
    return image.cpu()
