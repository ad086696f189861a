"""Random changes of an image and its boxes by torchvision, one function each: ``data.augment``.

A step takes a ``Picture`` and returns a changed one. It draws from PyTorch's global generator, as torchvision
does; ``seeded`` sets that for one image. ``FIRST`` are steps in the image file's pixels; ``LAST`` are steps
after resizing, which keep the image's size. Sizes are (height, width).
"""

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fsaf.boxes import area, intersection, turn_boxes
from fsaf.data.augment import MIN_VISIBLE, clip
from fsaf.data.transforms import resize, to_tensor

GREY = 114
"""Value of the ground that a step uncovers, in all three colours."""
SMALLEST = 0.5
"""``zoom_out`` shrinks the image to at least this share of its sides."""


class Picture(NamedTuple):
    """An image and its n boxes in pixels of it."""

    image: Tensor
    """(3, H, W) uint8 RGB."""
    boxes: np.ndarray
    """(n, 4) float32 xyxy."""
    labels: np.ndarray
    """(n,) int64."""
    crowd: np.ndarray
    """(n,) bool: ignore (crowd) regions."""

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width of the image."""
        return self.image.shape[1], self.image.shape[2]


Step = Callable[[Picture], Picture]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch's global generator of the CPU; set it back at the end. Other devices keep theirs."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def apply(steps: Mapping[str, Step], chances: Mapping[str, float], picture: Picture) -> Picture:
    """Apply each step with its probability."""
    for name, step in steps.items():
        if float(torch.rand(())) < chances[name]:
            picture = step(picture)
    return picture


def turn(picture: Picture) -> Picture:
    """Turn by one, two or three quarters."""
    quarters = int(torch.randint(1, 4, ()))
    boxes = turn_boxes(picture.boxes, picture.size, quarters)
    return picture._replace(image=picture.image.rot90(quarters, (1, 2)), boxes=boxes)


def crop(picture: Picture) -> Picture:
    """Crop as SSD does: at least one object keeps its centre and a drawn share of its area (RandomIoUCrop).

    An image without objects stays as it is.
    """
    from torchvision.transforms import v2  # here and below, since importing it takes a second

    objects = picture.boxes[~picture.crowd]
    if not len(objects):
        return picture
    drawn = v2.RandomIoUCrop().make_params([_image(picture.image), _boxes(objects, picture.size)])
    if not drawn:
        return picture
    top, left, height, width = (drawn[name] for name in ("top", "left", "height", "width"))
    moved = picture.boxes - np.array([left, top] * 2, np.float32)
    image = picture.image[:, top : top + height, left : left + width]
    return Picture(image, *clip(moved, picture.labels, picture.crowd, (height, width)))


def zoom_out(picture: Picture) -> Picture:
    """Shrink the image and place it anywhere on grey ground of the same size (RandomZoomOut)."""
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional as F

    drawn = v2.RandomZoomOut(side_range=(1.0, 1 / SMALLEST), p=1.0).make_params([_image(picture.image)])
    left, top, right, bottom = drawn["padding"]
    height, width = picture.size
    padded = F.pad(picture.image, [left, top, right, bottom], fill=GREY)
    scale = np.array([width / (left + width + right), height / (top + height + bottom)] * 2, np.float32)
    boxes = (picture.boxes + np.array([left, top] * 2, np.float32)) * scale
    return picture._replace(image=resize(padded, picture.size), boxes=boxes)


def affine(picture: Picture) -> Picture:
    """Rotate, scale, shift and shear a little (RandomAffine)."""
    from torchvision.transforms import v2

    random = v2.RandomAffine(degrees=5, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=(-2, 2, -2, 2))
    return move(picture, **random.make_params([_image(picture.image)]))


def move(
    picture: Picture, angle: float, translate: tuple[float, float], scale: float, shear: tuple[float, float]
) -> Picture:
    """Apply an affine map about the centre; a box becomes the hull of its moved corners.

    angle, shear (x, y): degrees, clockwise. translate: (x, y) pixels. The arguments are torchvision's.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    how = {"angle": angle, "translate": list(translate), "scale": scale, "shear": list(shear)}
    # Around zero, which is what torchvision mixes in at the edges; its ``fill`` leaves dark lines there.
    moved = F.affine(picture.image.float() - GREY, **how, interpolation=InterpolationMode.BILINEAR)
    image = (moved + GREY).round().to(torch.uint8)
    boxes = F.affine(_boxes(picture.boxes, picture.size), **how)
    return Picture(image, *clip(np.asarray(boxes, np.float32), picture.labels, picture.crowd, picture.size))


def photometric(picture: Picture) -> Picture:
    """Change brightness, contrast, saturation and hue in SSD's ranges.

    By OpenCV, with tables of 256 values: torchvision's ColorJitter computes the hue in float32 and takes ten
    times as long. OpenCV counts the hue in 180 steps.
    """
    import cv2

    brightness, contrast, saturation, hue = (2 * torch.rand(4, dtype=torch.float64) - 1).tolist()
    pixels = np.ascontiguousarray(picture.image.permute(1, 2, 0).numpy())
    values = np.arange(256)
    light, mean = 1 + 0.125 * brightness, pixels.mean()
    table = light * (mean + (values - mean) * (1 + 0.5 * contrast))
    pixels = cv2.LUT(pixels, table.round().clip(0, 255).astype(np.uint8))
    tables = [(values + round(9 * hue)) % 180, values * (1 + 0.5 * saturation), values]
    table = np.stack(tables, 1).round().clip(0, 255).astype(np.uint8)[None]
    pixels = cv2.cvtColor(cv2.LUT(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB)
    return picture._replace(image=torch.from_numpy(pixels).permute(2, 0, 1))


def blur(picture: Picture) -> Picture:
    """Blur with a Gaussian of 0.3 to 1.5 pixels, by OpenCV, which computes in whole numbers."""
    import cv2

    sigma = 0.3 + 1.2 * float(torch.rand((), dtype=torch.float64))
    pixels = np.ascontiguousarray(picture.image.permute(1, 2, 0).numpy())
    blurred = cv2.GaussianBlur(pixels, (5, 5), sigma)
    return picture._replace(image=torch.from_numpy(blurred).permute(2, 0, 1))


def noise(picture: Picture) -> Picture:
    """Add Gaussian noise of 4% of full brightness."""
    from torchvision.transforms import v2

    return picture._replace(image=v2.GaussianNoise(sigma=0.04)(picture.image))


def jpeg(picture: Picture) -> Picture:
    """Compress with a quality of 30 to 90. By Pillow: torchvision's encoder is deprecated since 0.29."""
    file = io.BytesIO()
    pixels = np.ascontiguousarray(picture.image.permute(1, 2, 0).numpy())
    Image.fromarray(pixels).save(file, "JPEG", quality=int(torch.randint(30, 91, ())))
    with Image.open(file) as image:
        return picture._replace(image=to_tensor(image))


def erase(picture: Picture) -> Picture:
    """Cover a rectangle with one colour (RandomErasing).

    Boxes of which less than ``MIN_VISIBLE`` can still be seen become crowd.
    """
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional as F

    drawn = v2.RandomErasing(p=1.0, scale=(0.01, 0.1)).make_params([_image(picture.image)])
    color = torch.randint(0, 256, (3, 1, 1), dtype=torch.uint8)
    if drawn["v"] is None:  # no rectangle fits into a very small image
        return picture
    top, left, height, width = (drawn[name] for name in "ijhw")
    covered = intersection(picture.boxes.T, np.array([left, top, left + width, top + height], np.float32))
    hidden = covered > (1 - MIN_VISIBLE) * area(picture.boxes.T)
    image = F.erase(picture.image, top, left, height, width, color)
    return picture._replace(image=image, crowd=picture.crowd | hidden)


FIRST: dict[str, Step] = {"turn": turn, "crop": crop}
LAST: dict[str, Step] = {
    "zoom_out": zoom_out,
    "affine": affine,
    "photometric": photometric,
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
    "erase": erase,
}


def _image(image: Tensor) -> Any:
    from torchvision import tv_tensors

    return tv_tensors.Image(image)


def _boxes(boxes: np.ndarray, size: tuple[int, int]) -> Any:
    from torchvision import tv_tensors

    # Not clamped: ``clip`` does that, and compares with the whole box.
    return tv_tensors.BoundingBoxes(
        torch.from_numpy(boxes.copy()), format="XYXY", canvas_size=size, clamping_mode=None
    )
