"""Order of an epoch: each image once over all processes, for any shapes, resumable anywhere."""

import math
from collections import Counter
from itertools import combinations, groupby, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fsaf.data.sampler import Draw, ShapeBatches

Shape = tuple[int, int]
SHAPES: list[Shape] = [(64, 96), (96, 64), (64, 64)]
shapes = st.lists(st.sampled_from(SHAPES), min_size=1, max_size=40)
batch_sizes = st.integers(1, 5)
worlds = st.integers(1, 4)


def epoch_of(
    shapes: list[Shape], batch_size: int, world: int = 1, *, epoch: int = 0, start: int = 0, **options: bool
) -> list[list[list[Draw]]]:
    """Return the batches of an epoch, by process."""
    ranks = []
    for rank in range(world):
        sampler = ShapeBatches(
            shapes, batch_size, **{"shuffle": True, "seed": 3, **options}, rank=rank, world=world
        )
        sampler.set_epoch(epoch, start)
        batches = list(sampler)
        assert len(sampler) == len(batches)
        ranks.append(batches)
    return ranks


@given(shapes=shapes, batch_size=batch_sizes, world=worlds, epoch=st.integers(0, 5), shuffle=st.booleans())
def test_every_image_once_an_epoch_and_batches_of_one_shape(
    shapes: list[Shape], batch_size: int, world: int, epoch: int, shuffle: bool
) -> None:
    ranks = epoch_of(shapes, batch_size, world, epoch=epoch, shuffle=shuffle)
    draws = [draw for batches in ranks for batch in batches for draw in batch]
    assert sorted(draw.item for draw in draws if draw.item >= 0) == list(range(len(shapes)))
    assert {draw.epoch for draw in draws} == {epoch}
    assert all(shapes[draw.item] == draw.shape for draw in draws if draw.item >= 0)
    # All processes take the same number of steps, of full batches, of one shape at each step.
    assert len({len(batches) for batches in ranks}) == 1
    for step in zip(*ranks, strict=True):
        assert all(len(batch) == batch_size for batch in step)
        assert len({draw.shape for batch in step for draw in batch}) == 1
    # Blank rows only at the end of a shape: less than one batch of each.
    total = batch_size * world
    blanks = Counter(draw.shape for draw in draws if draw.item < 0)
    for shape, count in Counter(shapes).items():
        assert blanks[shape] == -count % total


@given(shapes=shapes, batch_size=batch_sizes, world=worlds, epoch=st.integers(0, 3))
def test_order_is_a_function_of_seed_and_epoch(
    shapes: list[Shape], batch_size: int, world: int, epoch: int
) -> None:
    assert epoch_of(shapes, batch_size, world, epoch=epoch) == epoch_of(
        shapes, batch_size, world, epoch=epoch
    )


def test_epochs_and_seeds_differ_without_repeating_a_pattern() -> None:
    shapes = [SHAPES[i % 2] for i in range(40)]
    orders = set()
    for seed in range(3):
        sampler = ShapeBatches(shapes, 4, shuffle=True, seed=seed)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            orders.add(tuple(draw.item for batch in sampler for draw in batch))
    assert len(orders) == 9


def test_one_sampler_gives_the_same_epoch_again_after_another() -> None:
    sampler = ShapeBatches([SHAPES[0]] * 20, 4, shuffle=True)
    sampler.set_epoch(2)
    first = list(sampler)
    sampler.set_epoch(5, 3)
    list(sampler)
    sampler.set_epoch(2)
    assert list(sampler) == first


@given(shapes=shapes, batch_size=batch_sizes, world=worlds, epoch=st.integers(0, 3), data=st.data())
def test_a_later_start_is_the_rest_of_the_same_epoch(
    shapes: list[Shape], batch_size: int, world: int, epoch: int, data: st.DataObject
) -> None:
    whole = epoch_of(shapes, batch_size, world, epoch=epoch)
    start = data.draw(st.integers(0, len(whole[0])))
    rest = epoch_of(shapes, batch_size, world, epoch=epoch, start=start)
    assert rest == [batches[start:] for batches in whole]


@given(shapes=shapes, batch_size=batch_sizes)
def test_evaluation_has_no_blank_rows_and_keeps_order(shapes: list[Shape], batch_size: int) -> None:
    (batches,) = epoch_of(shapes, batch_size, shuffle=False, fill=False)
    draws = [draw for batch in batches for draw in batch]
    assert sorted(draw.item for draw in draws) == list(range(len(shapes)))
    for shape in SHAPES:
        items = [draw.item for draw in draws if draw.shape == shape]
        assert items == sorted(items)


def test_shuffling_spreads_the_filled_up_batches() -> None:
    sampler = ShapeBatches([SHAPES[0]] * 33, 4, shuffle=True)
    places = set()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        places |= {i for i, batch in enumerate(sampler) if any(draw.item < 0 for draw in batch)}
    assert len(places) > 4


def test_steps_are_those_of_an_epoch_whatever_the_start() -> None:
    sampler = ShapeBatches([SHAPES[0]] * 9 + [SHAPES[1]] * 5, 4, shuffle=True)
    assert sampler.steps == len(sampler) == 3 + 2
    sampler.set_epoch(0, 2)
    assert sampler.steps == 5 and len(sampler) == 3


def epochs_of_mixed_shapes() -> list[list[list[Draw]]]:
    """Return 30 epochs of 3,011 images, most of one shape, a few of another, sorted by shape."""
    shapes = [SHAPES[0]] * 2000 + [SHAPES[1]] * 950 + [SHAPES[2]] * 61
    sampler = ShapeBatches(shapes, 16, shuffle=True, seed=11)
    epochs = []
    for epoch in range(30):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    return epochs


def test_shapes_follow_each_other_as_in_a_random_order() -> None:
    rng = np.random.default_rng(0)
    repeats, expected, runs, usual = [], [], [], []
    for batches in epochs_of_mixed_shapes():
        order = [SHAPES.index(batch[0].shape or (0, 0)) for batch in batches]
        repeats.append(sum(a == b for a, b in pairwise(order)))
        # Of n in random order, two neighbours are the same: a kind of k batches with k (k - 1) / (n (n - 1)).
        expected.append(sum(k * (k - 1) for k in Counter(order).values()) / len(order))
        runs.append(longest_run(order))
        usual.append([longest_run(rng.permutation(order).tolist()) for _ in range(100)])
    error = np.std(repeats) / len(repeats) ** 0.5
    assert abs(np.mean(repeats) - np.mean(expected)) < 4 * error
    error = np.std(usual) / len(runs) ** 0.5
    assert abs(np.mean(runs) - np.mean(usual)) < 4 * error


def longest_run(order: list[int]) -> int:
    return max(len(list(group)) for _, group in groupby(order))


def test_filled_up_batches_and_rare_shapes_come_anywhere_in_an_epoch() -> None:
    epochs = epochs_of_mixed_shapes()
    for rare in (False, True):
        places = [
            (i + 0.5) / len(batches)
            for batches in epochs
            for i, batch in enumerate(batches)
            if (batch[0].shape == SHAPES[2] if rare else batch[-1].item < 0)
        ]
        # Evenly between 0 and 1: the mean of n has a standard deviation of sqrt(1 / 12 n), each quarter holds
        # a binomial number.
        n = len(places)
        assert n >= 60
        assert abs(np.mean(places) - 0.5) < 4 * (1 / 12 / n) ** 0.5
        quarters, _ = np.histogram(places, 4, (0, 1))
        assert np.all(np.abs(quarters - n / 4) < 4 * (n * 3 / 16) ** 0.5)


def test_images_share_batches_with_others_each_epoch() -> None:
    together: Counter[tuple[int, ...]] = Counter()
    for batches in epochs_of_mixed_shapes():
        for batch in batches:
            together.update(combinations(sorted(draw.item for draw in batch if 0 <= draw.item < 2000), 2))
    # Two images of that shape share a batch with probability 15 / 1,999 in each of 30 epochs: binomial.
    met = Counter(together.values())
    pairs, share = 2000 * 1999 // 2, 15 / 1999
    for times in (1, 2, 3):
        expected = pairs * math.comb(30, times) * share**times * (1 - share) ** (30 - times)
        assert abs(met[times] - expected) < 4 * expected**0.5
    assert max(met) <= 7
