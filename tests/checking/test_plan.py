"""Planned batch shapes, compared with brute force and an exact solver; waste, with sums over images."""

import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsaf.checking.plan import blank_rows, plan_shapes, resize_all, waste, waste_per_batch, waste_square
from fsaf.config import DataConfig
from fsaf.data.sampler import ShapeBatches
from fsaf.data.shapes import fit_image
from fsaf.errors import UserError

Size = tuple[int, int]
size_lists = st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=30)


def up(value: int) -> int:
    return (value + 31) // 32 * 32


def grid(resized: Sequence[Size]) -> list[Size]:
    """Return every useful shape: its sides are sides of images."""
    return [*itertools.product({up(h) for h, _ in resized}, {up(w) for _, w in resized})]


def padded(resized: Sequence[Size], shapes: Sequence[Size]) -> float:
    """Return padded pixels, computed image by image; infinite if an image fits no shape."""
    return sum(
        min((h * w for h, w in shapes if h >= size[0] and w >= size[1]), default=float("inf"))
        for size in resized
    )


def exact(resized: Sequence[Size], count: int) -> float:
    """Return the fewest padded pixels, by HiGHS: it chooses the shapes, and one of them for each bin."""
    from scipy import optimize, sparse

    shapes = np.array(grid(resized))
    bins = Counter((up(h), up(w)) for h, w in resized)
    sides, numbers = np.array(list(bins)), np.array(list(bins.values()))
    bin_e, shape_e = np.nonzero((sides[:, None] <= shapes).all(2))
    edges, k = len(bin_e), len(shapes)
    e = np.arange(edges)
    cost = np.concatenate([shapes.prod(1)[shape_e] * numbers[bin_e] / 1e6, np.zeros(k)])
    once = sparse.csr_matrix((np.ones(edges), (bin_e, e)), (len(sides), edges + k))
    there = sparse.csr_matrix(
        (np.repeat([1.0, -1.0], edges), (np.tile(e, 2), np.concatenate([e, edges + shape_e]))),
        (edges, edges + k),
    )
    total = sparse.csr_matrix((np.ones(k), (np.zeros(k, int), edges + np.arange(k))), (1, edges + k))
    result = optimize.milp(
        cost,
        constraints=[
            optimize.LinearConstraint(once, 1, 1),
            optimize.LinearConstraint(there, -np.inf, 0),
            optimize.LinearConstraint(total, 0, count),
        ],
        integrality=np.repeat([0, 1], [edges, k]),
        bounds=optimize.Bounds(0, 1),
        options={"mip_rel_gap": 0},
    )
    assert result.success
    return float(result.fun) * 1e6


@pytest.fixture(scope="module")
def coco(test_data: Path) -> list[Size]:
    """Sizes of 422 images of COCO 2017."""
    files = sorted((test_data / "minicoco" / "annotations").glob("instances_*.json"))
    images = [image for file in files for image in json.loads(file.read_text())["images"]]
    assert len(images) == 422
    return [(image["height"], image["width"]) for image in images]


@given(sizes=size_lists, count=st.integers(1, 6), short=st.integers(32, 900), extra=st.integers(0, 600))
def test_every_image_fits_without_shrinking(sizes: list[Size], count: int, short: int, extra: int) -> None:
    shapes = plan_shapes(sizes, count, short, short + extra)
    assert 1 <= len(shapes) == len(set(shapes)) <= count
    config = DataConfig(
        short_side=short, long_side=short + extra, shapes=shapes
    )  # multiples of 32, or raises
    free = DataConfig(short_side=short, long_side=short + extra)
    fits = [fit_image(size, config) for size in sizes]
    assert [size for size, _ in fits] == [fit_image(size, free)[0] for size in sizes]
    assert {shape for _, shape in fits} == set(shapes)  # none is idle
    # The order of the images does not matter, nor how many times the plan is made.
    assert plan_shapes(random.Random(0).sample(sizes, len(sizes)), count, short, short + extra) == shapes


@settings(max_examples=30)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), min_size=1, max_size=7),
    count=st.integers(1, 3),
    short=st.integers(64, 300),
    extra=st.integers(0, 200),
)
def test_no_plan_of_a_few_images_wastes_less(sizes: list[Size], count: int, short: int, extra: int) -> None:
    resized = resize_all(sizes, short, short + extra)
    plans = itertools.combinations_with_replacement(grid(resized), count)
    assert padded(resized, plan_shapes(sizes, count, short, short + extra)) == min(
        padded(resized, plan) for plan in plans
    )


def test_plans_of_mixed_sizes_are_near_the_best() -> None:
    rng = np.random.default_rng(5)
    ratios = []
    for count in (2, 3, 4, 5, 6, 8):
        for _ in range(2):
            sizes = [(int(h), int(w)) for h, w in rng.integers(50, 2000, (40, 2))]
            resized = resize_all(sizes, 480, 800)
            ratios.append(padded(resized, plan_shapes(sizes, count, 480, 800)) / exact(resized, count))
    assert min(ratios) > 1 - 1e-6  # the solver's answer is a bound
    assert max(ratios) < 1.01
    assert np.mean(ratios) < 1.001


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 8, 10])
def test_cocos_plan_is_the_best_there_is(coco: list[Size], count: int) -> None:
    resized = resize_all(coco, 800, 1333)
    best = exact(resized, count)
    assert padded(resized, plan_shapes(coco, count, 800, 1333)) == pytest.approx(best, rel=1e-9)


def test_coco_in_six_shapes(coco: list[Size]) -> None:
    resized = resize_all(coco, 800, 1333)
    shapes = plan_shapes(coco, 6, 800, 1333)
    assert shapes == [(800, 1088), (800, 1216), (800, 1344), (1088, 800), (1216, 800), (1344, 800)]
    assert waste(resized, shapes) < 0.042
    assert waste_per_batch(resized, 2) > 0.065
    assert waste_per_batch(resized, 16) > 0.15
    assert waste_square(resized, 1333) > 1.02


def test_the_size_of_coco_takes_seconds() -> None:
    rng = np.random.default_rng(0)
    sides = np.exp(rng.normal(6.2, 0.35, (118_000, 2))).clip(20, 2000).astype(int)
    sizes = [(h, w) for h, w in sides.tolist()]
    start = time.process_time()
    plan_shapes(sizes, 10, 800, 1333)
    assert time.process_time() - start < 5


def test_plans_by_hand() -> None:
    # 480 x 640 becomes 96 x 128, 640 x 480 becomes 128 x 96, 500 x 500 becomes 96 x 96.
    wide, tall, square = (480, 640), (640, 480), (500, 500)
    sizes = [wide, wide, tall, square]
    assert plan_shapes(sizes, 1, 96, 200) == [(128, 128)]
    assert plan_shapes(sizes, 2, 96, 200) == [(96, 128), (128, 96)]
    # More than there are sizes are of no use.
    assert plan_shapes(sizes, 9, 96, 200) == [(96, 96), (96, 128), (128, 96)]
    # Numbers decide: beside a hundred squares one tall image can take the larger shape.
    assert plan_shapes([square] * 100 + [wide, tall], 2, 96, 200) == [(96, 96), (128, 128)]


def test_waste_by_hand() -> None:
    resized = [(96, 128), (90, 100), (128, 96)]
    pixels = 96 * 128 + 90 * 100 + 128 * 96
    assert waste(resized, [(96, 128), (128, 96)]) == pytest.approx(3 * 96 * 128 / pixels - 1)
    assert waste(resized, [(128, 128)]) == pytest.approx(3 * 128 * 128 / pixels - 1)
    assert waste_square(resized, 120) == waste(resized, [(128, 128)])
    with pytest.raises(ValueError, match=r"128 x 96 fits none of the shapes \[\(96, 128\)\]"):
        waste(resized, [(96, 128)])


def mmdetection_batches(resized: Sequence[Size], batch_size: int, seed: int) -> Iterator[list[Size]]:
    """One epoch of mmdet.datasets.samplers.AspectRatioBatchSampler of MMDetection 3.3.0, drop_last off."""
    buckets: list[list[Size]] = [[], []]
    for height, width in random.Random(seed).sample(resized, len(resized)):
        bucket = buckets[0 if width < height else 1]
        bucket.append((height, width))
        if len(bucket) == batch_size:
            yield bucket[:]
            del bucket[:]
    left = buckets[0] + buckets[1]
    while left:
        yield left[:batch_size]
        left = left[batch_size:]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_waste_of_mmdetections_batches(coco: list[Size], batch_size: int) -> None:
    resized = resize_all(coco, 800, 1333)
    many = resized * 50
    found = []
    for seed in range(4):
        batches = list(mmdetection_batches(many, batch_size, seed))
        assert sum(map(len, batches)) == len(many)
        total = sum(len(b) * up(max(h for h, _ in b)) * up(max(w for _, w in b)) for b in batches)
        found.append(total / sum(h * w for h, w in many) - 1)
    ours = [waste_per_batch(resized, batch_size, seed) for seed in range(4)]
    # Two random orders of the same images; at 16 a batch their figures scatter by 0.001.
    assert np.mean(ours) == pytest.approx(np.mean(found), abs=1e-9 if batch_size == 1 else 2e-3)
    assert waste_per_batch(resized, batch_size, 3) == ours[3]


def test_waste_per_batch_by_hand() -> None:
    # Wide and tall images never share a batch while there are enough; squares count as wide.
    assert waste_per_batch([(64, 96), (96, 64)], 2) == 0
    assert waste_per_batch([(64, 96), (64, 64)], 1) == 0
    # In pairs: half of them are mixed, and their square is padded to 64 x 96.
    mixed = waste_per_batch([(64, 96), (64, 64)], 2)
    assert mixed == pytest.approx(0.5 * 64 * 32 / (64 * 96 + 64 * 64), rel=0.05)


@given(numbers=st.lists(st.integers(0, 12), min_size=3, max_size=3).filter(any), batch_size=st.integers(1, 5))
def test_blank_rows_are_those_that_the_sampler_adds(numbers: list[int], batch_size: int) -> None:
    shapes = [(64, 96), (96, 64), (64, 64)]
    each = [shape for shape, number in zip(shapes, numbers, strict=True) for _ in range(number)]
    drawn = [draw for batch in ShapeBatches(each, batch_size, shuffle=True) for draw in batch]
    blank = sum(draw.item < 0 for draw in drawn)
    assert blank_rows(each, shapes, batch_size) == blank / len(each)


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(UserError, match="shapes = 0: must be at least 1"):
        plan_shapes([(480, 640)], 0, 800, 1333)
    with pytest.raises(UserError, match="no images"):
        plan_shapes([], 6, 800, 1333)
