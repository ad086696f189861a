"""The order of augmentation: mosaic or single image, steps before resizing, resizing, steps after it.

Everything follows from the generator ``rng`` of one sample. Sizes are (height, width).
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain

import numpy as np
import torch

from fsaf.config import DataConfig
from fsaf.data.augment import Change, change_boxes, crop, draw_change, finish
from fsaf.data.distort import FIRST, GREY, LAST, Picture, apply, seeded
from fsaf.data.shapes import fit_shape
from fsaf.data.transforms import resize

MIDDLE = (0.25, 0.75)
"""Range of the corner that the four parts of a mosaic share, as shares of its sides."""
PART_SCALE = (0.5, 1.0)
"""Range of the scale of a part, of the size that its image has outside a mosaic."""


def augment(
    read: Callable[[int], Picture],
    item: int,
    images: int,
    shape: tuple[int, int] | None,
    rng: np.random.Generator,
    data: DataConfig,
) -> Picture:
    """Return image ``item`` augmented as ``data`` configures, of at most the batch shape ``shape``.

    read: returns an image file by its number, 0 to ``images`` - 1; a mosaic reads three others too.
    """
    chances = data.chances
    with seeded(int(rng.integers(2**62))):
        first = apply(FIRST, chances, read(item))
        if rng.random() < chances["mosaic"]:
            others = rng.integers(images, size=3).tolist()
            # Read one at a time: four photographs in full size take much memory.
            parts = chain([first], (apply(FIRST, chances, read(other)) for other in others))
            picture = mosaic(parts, shape or fit_shape(first.size, shape, data), rng, data)
            chances = chances | {"zoom_out": 0.0}  # a mosaic has shrunk its parts already
        else:
            picture = fit(first, fit_shape(first.size, shape, data), shape, rng, data)
        return apply(LAST, chances, picture)


def fit(
    picture: Picture,
    size: tuple[int, int],
    limit: tuple[int, int] | None,
    rng: np.random.Generator,
    data: DataConfig,
) -> Picture:
    """Resize to ``size`` times the random scale, crop to ``limit``, flip and recolour."""
    change = draw_change(rng, picture.size, size, limit, data)
    labelled = change_boxes(picture.boxes, picture.labels, picture.crowd, picture.size, change)
    return Picture(_pixels(picture, change, data), *labelled)


def _pixels(picture: Picture, change: Change, data: DataConfig) -> torch.Tensor:
    image = resize(crop(picture.image, change), change.size, data.antialias)
    finish(image, change)
    return image


def mosaic(
    parts: Iterable[Picture], size: tuple[int, int], rng: np.random.Generator, data: DataConfig
) -> Picture:
    """Return four images around one random corner, as one image of ``size`` (YOLOv4's mosaic).

    Each part is scaled, cropped at random to its quarter, and laid to the common corner; the rest is grey.
    """
    height, width = size
    y, x = (min(side - 1, max(1, round(side * rng.uniform(*MIDDLE)))) for side in size)
    canvas = torch.full((height, width, 3), GREY, dtype=torch.uint8).permute(2, 0, 1)
    scaled = replace(data, scale=PART_SCALE)
    moved = []
    for number, picture in enumerate(parts):
        below, right = divmod(number, 2)
        quarter = (height - y if below else y, width - x if right else x)
        part = fit(picture, fit_shape(picture.size, size, data), quarter, rng, scaled)
        top, left = y if below else y - part.size[0], x if right else x - part.size[1]
        canvas[:, top : top + part.size[0], left : left + part.size[1]] = part.image
        moved.append(part._replace(boxes=part.boxes + np.array([left, top] * 2, np.float32)))
    return Picture(
        canvas,
        np.concatenate([part.boxes for part in moved]),
        np.concatenate([part.labels for part in moved]),
        np.concatenate([part.crowd for part in moved]),
    )
