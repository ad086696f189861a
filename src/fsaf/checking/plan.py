"""Plan the fixed batch shapes that waste the fewest padded pixels, and compare them with other paddings.

Waste is padding over resized pixels: 0.04 is 4 pixels of padding for 100 pixels of images.
Sizes and shapes are (height, width) in pixels. M bins of sizes, K candidate shapes.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from fsaf.data.shapes import choose_shape, resized_size, round_up
from fsaf.errors import DataError, UserError

Size = tuple[int, int]

_SEEDS = 64  # starts of the search; more cost time and rarely help


def resize_all(sizes: Sequence[Size], short_side: int, long_side: int) -> list[Size]:
    """Return the sizes that images of ``sizes`` are resized to under the limits of a recipe."""
    known = {size: resized_size(*size, short_side, long_side) for size in set(sizes)}
    return [known[size] for size in sizes]


def plan_shapes(sizes: Sequence[Size], count: int, short_side: int, long_side: int) -> list[Size]:
    """Return at most ``count`` batch shapes that hold every resized image and together waste few pixels.

    sizes: those of the image files. Shapes are multiples of 32, wide ones first; there are fewer than
    ``count`` if more do not help. This is a deterministic local search, so the plan is likely but not
    certainly the best: from several starts it exchanges one shape, then two, as long as that helps. Raises
    UserError if there are no sizes or ``count`` is below 1.
    """
    if count < 1:
        raise UserError(f"shapes = {count}: must be at least 1")
    if not sizes:
        raise DataError("no images, so there are no sizes to plan batch shapes for")
    bins = Counter(
        (round_up(h), round_up(w)) for h, w in resize_all(sizes, short_side, long_side)
    )  # bins are enough: a shape holds all images of a bin or none
    sides_m2 = np.array(sorted(bins), np.int64)
    shapes_k2 = _candidates(sides_m2)
    number_m = np.array([bins[tuple(side)] for side in sides_m2.tolist()], np.int64)
    fits_mk = (sides_m2[:, None] <= shapes_k2).all(2)
    area_k = shapes_k2.prod(1)
    # A bin that fits no shape costs more than any plan that holds every bin.
    nowhere = int(area_k.max() * number_m.sum()) + 1
    cost_mk = np.where(fits_mk, area_k * number_m[:, None], nowhere)
    chosen = _search(cost_mk, min(count, len(bins)))
    shapes = [(int(h), int(w)) for h, w in shapes_k2[chosen]]
    used = {choose_shape(size, shapes) for size in bins}
    return sorted(used, key=lambda shape: (shape[0] > shape[1], shape))


def _candidates(sides_m2: np.ndarray) -> np.ndarray:
    """Return (K, 2): every shape that an optimal plan can contain.

    A shape larger than its images wastes less if it is cut down to their largest sides.
    """
    largest = {
        (max(a[0], b[0]), max(a[1], b[1]))
        for a, b in itertools.combinations_with_replacement(sides_m2.tolist(), 2)
    }
    return np.array(sorted(largest), np.int64)


def _search(cost_mk: np.ndarray, count: int) -> list[int]:
    """Return the indices of ``count`` candidates whose cost, the sum over bins, is a local minimum.

    It starts from a greedy plan, from a larger one merged pairwise, and from single candidates, since each
    start finds plans that others miss.
    """
    added = _refill(cost_mk, [], count)
    merged = _refill(cost_mk, added, min(2 * count + 4, len(cost_mk)))
    while len(merged) > count:
        merged = min(_without_two(cost_mk, merged, len(merged) - 1), key=lambda k: _total(cost_mk, k))
    seeds = np.linspace(0, cost_mk.shape[1] - 1, min(_SEEDS, cost_mk.shape[1])).astype(int)
    starts = [added, merged, *(_refill(cost_mk, [int(k)], count) for k in seeds)]
    best = min((_exchange(cost_mk, start) for start in starts), key=lambda k: _total(cost_mk, k))
    return _improve(cost_mk, best)


def _improve(cost_mk: np.ndarray, chosen: list[int]) -> list[int]:
    """Exchange one candidate, or two, for others until neither helps."""
    chosen = _exchange(cost_mk, chosen)
    for other in _without_two(cost_mk, chosen, len(chosen)):
        other = _exchange(cost_mk, other)
        if _total(cost_mk, other) < _total(cost_mk, chosen):
            return _improve(cost_mk, other)
    return chosen


def _without_two(cost_mk: np.ndarray, chosen: list[int], count: int) -> Iterator[list[int]]:
    """Yield, for each pair of ``chosen``, a plan of ``count`` with the pair replaced greedily."""
    for a, b in itertools.combinations(chosen, 2):
        yield _refill(cost_mk, [k for k in chosen if k not in (a, b)], count)


def _refill(cost_mk: np.ndarray, chosen: list[int], count: int) -> list[int]:
    """Add the candidate that helps most, until there are ``count``."""
    while len(chosen) < count:
        chosen = [*chosen, _best(cost_mk, chosen)]
    return chosen


def _exchange(cost_mk: np.ndarray, chosen: list[int]) -> list[int]:
    """Exchange one candidate for the best other one as long as that helps."""
    tried = 0
    while tried < len(chosen):  # all in a row without success
        rest = chosen[1:]
        other = [*rest, _best(cost_mk, rest)]
        better = _total(cost_mk, other) < _total(cost_mk, chosen)
        tried = 1 if better else tried + 1
        chosen = other if better else [*rest, chosen[0]]
    return chosen


def _best(cost_mk: np.ndarray, chosen: list[int]) -> int:
    """Return the candidate that lowers the total most if added to ``chosen``; the first if several do."""
    if not chosen:
        return int(cost_mk.sum(0).argmin())
    return int(np.minimum(cost_mk, cost_mk[:, chosen].min(1, keepdims=True)).sum(0).argmin())


def _total(cost_mk: np.ndarray, chosen: list[int]) -> int:
    return int(cost_mk[:, chosen].min(1).sum())


def waste(resized: Sequence[Size], shapes: Sequence[Size]) -> float:
    """Return the waste if each of the ``resized`` images is padded to its shape.

    Raises ValueError if an image fits no shape: it would be shrunk, not padded.
    """
    padded = pixels = 0
    for (height, width), number in Counter(resized).items():
        shape = choose_shape((height, width), shapes)
        if shape[0] < height or shape[1] < width:
            raise ValueError(f"an image of {height} x {width} fits none of the shapes {list(shapes)}")
        padded += shape[0] * shape[1] * number
        pixels += height * width * number
    return padded / pixels - 1


def waste_per_batch(resized: Sequence[Size], batch_size: int, seed: int = 0) -> float:
    """Return the waste if each batch is padded to its own largest sides, rounded up to 32.

    This is MMDetection 3's default: AspectRatioBatchSampler draws wide (and square) images and tall ones into
    separate batches, in random order; the rest of both forms the last, mixed batches. A small data set is
    repeated up to 20,000 images, so that these last batches, which waste most, count as little as in a large
    one.
    """
    sides_n2 = np.array(resized, np.int64)
    sides_n2 = np.tile(sides_n2, (-(-20_000 // len(sides_n2)), 1))
    drawn_n2 = np.random.default_rng(seed).permutation(sides_n2)
    tall_n = drawn_n2[:, 1] < drawn_n2[:, 0]
    left = sum(tall_n) % batch_size, sum(~tall_n) % batch_size
    tall, wide = drawn_n2[tall_n], drawn_n2[~tall_n]
    rest = np.concatenate([tall[len(tall) - left[0] :], wide[len(wide) - left[1] :]])
    padded = 0
    for group in (tall[: len(tall) - left[0]], wide[: len(wide) - left[1]], rest):
        for start in range(0, len(group), batch_size):
            batch = group[start : start + batch_size]
            height, width = batch.max(0).tolist()
            padded += round_up(height) * round_up(width) * len(batch)
    return padded / int(sides_n2.prod(1).sum()) - 1


def waste_square(resized: Sequence[Size], long_side: int) -> float:
    """Return the waste if every image is padded to a square of ``long_side``, rounded up to 32."""
    return waste(resized, [(round_up(long_side), round_up(long_side))])


def blank_rows(resized: Sequence[Size], shapes: Sequence[Size], batch_size: int) -> float:
    """Return blank rows over images in an epoch: the last batch of each shape is filled with blank rows."""
    numbers = Counter(choose_shape(size, shapes) for size in resized)
    return sum(-number % batch_size for number in numbers.values()) / len(resized)
