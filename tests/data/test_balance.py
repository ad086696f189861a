"""Repeat-factor sampling: compare with loops over the formula of LVIS."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fsaf.config import DataConfig
from fsaf.data.balance import balance_note, class_shares, draw_counts, image_factors, whole
from fsaf.data.readers.coco import read_coco
from fsaf.data.records import Classes, ImageRecord, Records
from fsaf.data.sampler import Draw, ShapeBatches
from fsaf.data.samples import Images
from fsaf.data.workers import make_loader
from fsaf.recipe import build_config, load_recipe
from fsaf.training.session import open_session
from synthetic import Picture, eight_pictures, recipe, write_coco

labels = st.lists(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=5), min_size=1, max_size=40)
factors = st.lists(st.floats(1, 6), min_size=1, max_size=40).map(np.array)
Labels = list[list[tuple[int, bool]]]


def records_of(images: Labels) -> Records:
    """Return a split whose images hold objects, and crowd regions, of these labels."""
    return Records(
        images=[
            ImageRecord(
                id=i,
                path=Path(f"{i}.png"),
                width=96,
                height=64,
                boxes=np.tile(np.array([[0, 0, 9, 9]], np.float32), (len(image), 1)),
                labels=np.array([label for label, _ in image], np.int64),
                crowd=np.array([crowd for _, crowd in image], bool),
            )
            for i, image in enumerate(images)
        ],
        classes=Classes(names=tuple("abcde"), ids=(1, 2, 3, 4, 5)),
        source=Path("a.json"),
    )


@given(images=labels, threshold=st.floats(0.001, 1))
def test_factors_are_those_of_the_paper(images: Labels, threshold: float) -> None:
    expected = []
    for image in images:
        largest = 1.0
        for label, crowd in image:
            if crowd:
                continue
            having = sum(1 for other in images if (label, False) in other)
            largest = max(largest, math.sqrt(threshold / (having / len(images))))
        expected.append(largest)
    np.testing.assert_allclose(image_factors(records_of(images), threshold), expected)


@given(factors=factors, seed=st.integers(0, 10**6))
def test_counts_are_factors_rounded_down_or_up_with_a_fixed_sum(factors: np.ndarray, seed: int) -> None:
    counts = draw_counts(factors, np.random.default_rng(seed))
    total = whole(factors)
    assert total - factors.sum() < 1 and counts.sum() == total
    raised = factors * total / factors.sum()
    assert (counts >= 1).all()
    assert (np.abs(counts - raised) < 1 + 1e-9).all()


def test_the_mean_of_the_counts_is_the_factor() -> None:
    factors = np.array([1.0, 1.25, 2.5, 3.9, 1.0, 1.35])  # sum 11
    rounds = np.array([draw_counts(factors, np.random.default_rng(seed)) for seed in range(4000)])
    error = rounds.std(0) / len(rounds) ** 0.5
    assert (np.abs(rounds.mean(0) - factors) <= 4 * error + 1e-9).all()
    assert set(rounds[:, 0]) == {1} and set(rounds[:, 2]) == {2, 3}


@given(factors=factors, batch_size=st.integers(1, 5), world=st.integers(1, 3), data=st.data())
def test_epochs_have_equal_steps_and_processes_share_them(
    factors: np.ndarray, batch_size: int, world: int, data: st.DataObject
) -> None:
    kinds = [(64, 96), (96, 64)]
    shapes = data.draw(st.lists(st.sampled_from(kinds), min_size=len(factors), max_size=len(factors)))
    steps = set()
    for epoch in range(3):
        ranks = []
        for rank in range(world):
            sampler = ShapeBatches(
                shapes, batch_size, shuffle=True, seed=3, rank=rank, world=world, factors=factors
            )
            sampler.set_epoch(epoch)
            ranks.append(list(sampler))
            assert len(ranks[-1]) == sampler.steps
        draws = [draw for batches in ranks for batch in batches for draw in batch if draw.item >= 0]
        assert len(draws) == len(set(draws)) == sampler.images
        counts = Counter(draw.item for draw in draws)
        assert set(counts) == set(range(len(factors)))
        for item, count in counts.items():
            assert {draw.copy for draw in draws if draw.item == item} == set(range(count))
            assert abs(count - factors[item]) < 2  # rounding, and raising to a whole sum
        for step in zip(*ranks, strict=True):
            assert len({draw.shape for batch in step for draw in batch}) == 1
        steps |= {len(batches) for batches in ranks}
        start = data.draw(st.integers(0, sampler.steps))
        sampler.set_epoch(epoch, start)
        assert list(sampler) == ranks[-1][start:]
    assert len(steps) == 1


def test_factors_of_one_change_nothing_but_the_order() -> None:
    sampler = ShapeBatches([(64, 96)] * 9, 4, shuffle=False, factors=np.ones(9))
    plain = ShapeBatches([(64, 96)] * 9, 4, shuffle=False)
    assert list(sampler) == list(plain) and sampler.steps == plain.steps


def one_rare(folder: Path) -> None:
    """Write eight pictures with red objects, one of which has a green one too."""
    pictures = [Picture(height=64, width=96, objects=[(8, 8, 30, 30, 7)]) for _ in range(7)]
    pictures.append(Picture(height=64, width=96, objects=[(8, 8, 30, 30, 7), (50, 8, 30, 30, 3)]))
    write_coco(folder, pictures)
    write_coco(folder, eight_pictures(1)[:2], "val", first_id=501)


@pytest.mark.slow
def test_training_says_what_is_repeated_and_evaluation_repeats_nothing(tmp_path: Path) -> None:
    one_rare(tmp_path)
    values = recipe(tmp_path, tmp_path / "run", data__balance=0.5, data__batch_size=2)
    session = open_session(build_config(values, where="test"), torch.device("cpu"))
    # Green is in one of eight images: sqrt(0.5 / 0.125) = 2.
    notes = [note for note in session.notes if "balance" in note]
    assert notes == [
        "data.balance 0.5: 9 images an epoch instead of 8, images of 1 class repeated: green x 2"
    ]
    assert session.steps_per_epoch == 5
    ids = [id_ for batch in session.loader for id_ in batch.ids]
    assert Counter(ids) == {id_: 2 if id_ == 18 else 1 for id_ in range(11, 19)}
    images = Images(session.records, session.run.config.data, augment=False)
    _, sampler = make_loader(images, 2, workers=0, train=False)
    assert sampler.images == 8


def test_repetitions_are_augmented_differently(tmp_path: Path) -> None:
    records = read_coco(write_coco(tmp_path, eight_pictures()), tmp_path / "images" / "train")
    data = DataConfig(short_side=64, long_side=96, shapes=[(64, 96)], scale=(0.5, 2.0))
    images = Images(records, data, augment=True)
    found = [images[Draw(0, 3, (64, 96), copy)].change for copy in (0, 1, 2, 1)]
    assert found[1] == found[3] and len(set(found)) == 3


def test_nothing_to_repeat_is_said() -> None:
    records = records_of([[(0, False)], [(0, False), (1, True)]])
    assert class_shares(records).tolist() == [1, 0, 0, 0, 0]
    assert "repeats nothing" in balance_note(records, 0.5, 2)


def test_it_is_off_unless_given() -> None:
    assert load_recipe("lite0").data.balance == 0 and replace(DataConfig(), balance=1.0).balance == 1
