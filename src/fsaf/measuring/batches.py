"""Count the batches of an epoch by shape, from the sizes of the images alone."""

from collections import Counter
from dataclasses import dataclass

from fsaf.config.data import MULTIPLE
from fsaf.data.sampler import ShapeBatches
from fsaf.data.samples import Images
from fsaf.data.shapes import fit_image, padded_shape


@dataclass(kw_only=True)
class Batches:
    """The batches of the first epoch, as one process reads them."""

    steps: Counter[tuple[int, int]]
    """Number of batches of each shape (H, W)."""
    largest: int
    """Number, from 0, of the first batch of the largest shape."""
    padding: float
    """Padding as a share of the images' pixels."""
    images: int
    """Number of images of an epoch, of all processes; those that ``data.balance`` repeats count again."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return the shape with most pixels."""
        return max(self.steps, key=_pixels)

    @property
    def weight(self) -> float:
        """Return the pixels of an epoch in batches of the largest shape."""
        return sum(count * _pixels(shape) for shape, count in self.steps.items()) / _pixels(self.shape)


def count_batches(images: Images, sampler: ShapeBatches) -> Batches:
    """Return the batches of the first epoch, from the sizes of the images before ``data.scale``."""
    sampler.set_epoch(0)
    data = images.data
    steps: Counter[tuple[int, int]] = Counter()
    largest, inside, padded = 0, 0, 0
    shape_of_largest = (0, 0)
    for number, draws in enumerate(sampler):
        records = [images.records.images[draw.item] for draw in draws if draw.item >= 0]
        sizes = [fit_image((record.height, record.width), data)[0] for record in records]
        shape = draws[0].shape or padded_shape([*sizes, (MULTIPLE, MULTIPLE)], data.pad or MULTIPLE)
        steps[shape] += 1
        inside, padded = inside + sum(map(_pixels, sizes)), padded + _pixels(shape) * len(sizes)
        if _pixels(shape) > _pixels(shape_of_largest):
            largest, shape_of_largest = number, shape
    return Batches(steps=steps, largest=largest, padding=padded / inside - 1, images=sampler.images)


def _pixels(shape: tuple[int, int]) -> int:
    return shape[0] * shape[1]
