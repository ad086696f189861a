"""Test that ``auto`` chooses batch, epochs and warm-up by the number of images, unless they are given."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fsaf.checkpoints.format import load_checkpoint
from fsaf.config import Config, OptimConfig, TrainConfig, to_dict
from fsaf.config.fields import is_auto
from fsaf.data.readers.splits import open_split
from fsaf.recipe import build_config, load_recipe
from fsaf.training.fit import fit_size, fit_to_data, schedule_notes
from fsaf.training.trainer import train
from synthetic import Picture, eight_pictures, recipe, write_coco, write_eight


def chosen(config: Config) -> tuple[int, int, int, int]:
    return (
        config.data.batch_size,
        config.train.epochs,
        config.train.evaluate_every,
        config.optim.warmup_steps,
    )


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (205, (8, 12, 3, 50)),  # blood cells: the values of the published figures
        (5000, (8, 12, 3, 50)),
        (100, (8, 24, 6, 50)),
        (50, (4, 24, 6, 50)),
        (10, (2, 60, 15, 50)),
        (3, (2, 150, 37, 50)),
        (1, (2, 300, 75, 50)),
    ],
)
def test_few_images_get_small_batches_and_many_epochs(images: int, expected: tuple[int, ...]) -> None:
    """About 300 steps, however few images there are."""
    config, notes = fit_to_data(load_recipe("lite0"), images, 1)
    assert chosen(config) == expected
    assert all(type(value) is int for value in chosen(config))
    (note,) = notes
    for word in (f"{images:,} image", f"data.batch_size {expected[0]}", f"train.epochs {expected[1]}"):
        assert word in note


@pytest.mark.parametrize(
    ("sides", "keys", "expected"),
    [
        ([(480, 640)], [], (800, 1333)),  # as COCO's in the published training
        ([(640, 480), (1000, 3000), (480, 640)], [], (800, 1333)),  # the median of the shorter sides
        ([(300, 400)], [], (500, 833)),
        ([(64, 96)], [], (480, 800)),
        ([(3000, 4000)], [], (800, 1333)),
        ([(300, 400)], ["--data.long_side=448"], (448, 448)),
        ([(300, 400)], ["--data.short_side=600"], (600, 1000)),
        ([(300, 400)], ["--data.short_side=600", "--data.long_side=800"], (600, 800)),
    ],
)
def test_images_are_enlarged_as_in_the_published_training(
    sides: list[tuple[int, int]], keys: list[str], expected: tuple[int, int], tmp_path: Path
) -> None:
    pictures = [Picture(height=height, width=width) for height, width in sides]
    write_coco(tmp_path, pictures)
    files = ["--data.train.annotations=annotations/train.json", "--data.train.images=images/train"]
    config = load_recipe("fsaf_r50_own", [f"--data.root={tmp_path}", *files, *keys])
    records = open_split(config.data, "train")
    found, notes = fit_size(config, records)
    assert (found.data.short_side, found.data.long_side) == expected
    assert not is_auto(found.data.short_side) and not is_auto(found.data.long_side)
    assert len(notes) == (len(keys) < 2)
    assert fit_size(config, records, found) == (found, [])  # a run that is resumed


def test_several_processes_share_the_images() -> None:
    config, _ = fit_to_data(load_recipe("lite0"), 205, 4)
    assert chosen(config) == (4, 24, 6, 50)  # 13 steps of 16 images


def test_given_values_stay() -> None:
    config, notes = fit_to_data(load_recipe("lite0", ["--data.batch_size=4", "--train.epochs=5"]), 10, 1)
    assert chosen(config) == (4, 5, 3, 2) and "data.batch_size" not in notes[0]
    config, _ = fit_to_data(load_recipe("lite0", ["--train.epochs", "auto", "--optim.warmup_steps=7"]), 10, 1)
    assert chosen(config) == (2, 60, 15, 7)
    given = load_recipe("bccd_lite0")
    assert fit_to_data(given, 10, 1) == (given, [])


def test_auto_stays_auto_in_files_and_is_a_number_in_between() -> None:
    """Whatever uses a recipe without a data set, such as a benchmark, gets the usual values."""
    config = load_recipe("lite0")
    assert chosen(config) == (8, 12, 3, 50)
    values = to_dict(config)
    assert values["data"]["batch_size"] == values["train"]["epochs"] == "auto"
    assert to_dict(build_config(values, where="here")) == values


@pytest.mark.parametrize(
    ("images", "fitting", "scale_lr", "expected"),
    [
        (5000, None, True, 8),  # a CPU
        (5000, 1000, False, 8),
        (5000, 1000, True, 32),  # 156 steps an epoch
        (6400, 1000, True, 64),
        (6400, 20, True, 16),
        (6399, 63, True, 32),
        (5000, 7, False, 4),
        (5000, 1, True, 1),
        (10, 1000, True, 2),  # few images keep their small batches
    ],
)
def test_the_memory_of_an_accelerator_limits_the_batch(
    images: int, fitting: int | None, scale_lr: bool, expected: int
) -> None:
    """Batches of more than 8 only if the learning rate is scaled for them."""
    recipe = load_recipe("lite0", [f"--optim.scale_lr={str(scale_lr).lower()}"])
    config, (note,) = fit_to_data(recipe, images, 1, count_in_memory=lambda: fitting)
    assert config.data.batch_size == expected and f"data.batch_size {expected}" in note
    assert (f"{fitting:,} images of the largest shape fit" in note) if fitting else "fit into" not in note


def test_memory_is_not_tried_for_a_batch_that_is_given_or_resumed() -> None:
    def refuse() -> int:
        raise AssertionError("tried")

    fit_to_data(load_recipe("lite0", ["--data.batch_size=4"]), 10, 1, count_in_memory=refuse)
    fit_to_data(load_recipe("lite0"), 10, 1, earlier=load_recipe("lite0"), count_in_memory=refuse)


@pytest.mark.slow
def test_a_run_says_and_stores_what_was_chosen_and_keeps_it(tmp_path: Path) -> None:
    """Also if it goes on with more images."""
    write_eight(tmp_path)
    values: dict[str, Any] = recipe(tmp_path, tmp_path / "out", model__backbone="test_efficientnet")
    values["train"] = {"epochs": "auto", "evaluate_every": 0, "max_steps": 2}
    values["data"]["batch_size"] = "auto"
    said = []
    for resume in (False, True):
        text = io.StringIO()
        values["resume"], values["train"]["max_steps"] = resume, 2 + resume
        train(build_config(values, where="here"), Console(file=text, width=400))
        said.append(text.getvalue())
        config = load_checkpoint(tmp_path / "out" / "checkpoints" / "last.pt").config
        assert (config.data.batch_size, config.train.epochs) == (2, 75)
        write_coco(tmp_path, eight_pictures() * 20)
    assert "chosen for 8 images: data.batch_size 2, train.epochs 75" in said[0]
    assert "4 steps an epoch of 2 images" in said[0] and "80 steps an epoch of 2 images" in said[1]
    assert "chosen for" not in said[1] and "changed: data.batch_size" not in said[1]


@pytest.mark.parametrize(
    ("epochs", "milestones", "steps", "told"),
    [
        (12, [8, 11], 1000, None),
        (6, [8, 11], 1000, "optim.milestones 8, 11 come after train.epochs 6"),
        (10, [8, 11], 1000, "optim.milestones 11 comes after train.epochs 10"),
        (12, [8, 11], 40, "optim.warmup_steps 500"),
    ],
)
def test_a_schedule_that_does_not_fit_the_length_is_told(
    epochs: int, milestones: list[int], steps: int, told: str | None
) -> None:
    config = Config(optim=OptimConfig(milestones=milestones), train=TrainConfig(epochs=epochs))
    notes = schedule_notes(config, steps * epochs if steps > 100 else steps)
    assert (not notes) if told is None else told in notes[0]
