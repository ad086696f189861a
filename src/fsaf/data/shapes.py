"""Batch shapes: choose the fixed (H, W) of an image's batch, and the size that the image is resized to."""

from collections.abc import Sequence

from fsaf.config import DataConfig
from fsaf.config.data import MULTIPLE


def round_up(value: int, multiple: int = MULTIPLE) -> int:
    """Return ``value`` rounded up to a multiple of ``multiple``."""
    return -(-value // multiple) * multiple


def resized_size(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """Return height and width scaled, ratio kept, to the nearer of the two limits (mmcv.rescale_size)."""
    scale = min(long_side / max(height, width), short_side / min(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def choose_shape(size: tuple[int, int], shapes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the smallest shape (height, width) that holds ``size``, else the one that shrinks it least."""

    def cost(shape: tuple[int, int]) -> tuple[float, int]:
        fit = min(1.0, shape[0] / size[0], shape[1] / size[1])
        return (-fit, shape[0] * shape[1])

    return min(shapes, key=cost)


def fit_image(size: tuple[int, int], data: DataConfig) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Return the size that an image of ``size`` (height, width) is resized to, and its fixed batch shape.

    The shape is None if ``data.pad`` is set or the config names no shapes.
    """
    resized = resized_size(*size, data.short_side, data.long_side)
    if data.pad is not None or not data.shapes:
        return resized, None
    shape = choose_shape(resized, data.shapes)
    return fit_shape(size, shape, data), shape


def fit_shape(size: tuple[int, int], shape: tuple[int, int] | None, data: DataConfig) -> tuple[int, int]:
    """Return the size that an image of ``size`` is resized to for a batch of ``shape``; None is no limit."""
    resized = resized_size(*size, data.short_side, data.long_side)
    if shape is None or (resized[0] <= shape[0] and resized[1] <= shape[1]):
        return resized
    scale = min(shape[0] / size[0], shape[1] / size[1])
    return (
        min(shape[0], max(1, int(size[0] * scale + 0.5))),
        min(shape[1], max(1, int(size[1] * scale + 0.5))),
    )


def padded_shape(sizes: Sequence[tuple[int, int]], multiple: int) -> tuple[int, int]:
    """Return the shape of a batch if ``data.pad`` is set: the largest sides, each rounded up."""
    return round_up(max(h for h, _ in sizes), multiple), round_up(max(w for _, w in sizes), multiple)
