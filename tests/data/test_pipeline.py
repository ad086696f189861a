"""The whole augmentation: presets, fixed shapes, and results that only seed, epoch and image decide."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

from data.batches import read_batches, same, write_records
from fsaf.config import DataConfig
from fsaf.config.data import AUGMENTATIONS, PRESETS
from fsaf.data.batch import Batch
from fsaf.data.distort import FIRST, LAST, Picture
from fsaf.data.pipeline import fit
from fsaf.data.records import Records
from fsaf.data.sampler import Draw
from fsaf.data.samples import Collate, Images
from fsaf.data.shapes import fit_shape
from fsaf.data.transforms import read_image
from fsaf.errors import RecipeError
from fsaf.recipe import load_recipe, recipe_names
from synthetic import eight_pictures

DATA = DataConfig(
    batch_size=3,
    augment="strong",
    turn=0.3,
    flip=0.5,
    scale=(0.8, 1.2),
    short_side=64,
    long_side=96,
    shapes=[(64, 96), (96, 64)],
)
PRESET_NAMES = [name for name in PRESETS if name != "none"]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    return write_records(tmp_path_factory.mktemp("coco"), eight_pictures())


def batches(records: Records, data: DataConfig = DATA, **options: Any) -> list[Batch]:
    return read_batches(records, data, train=True, seed=4, **{"epoch": 1, **options})


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_batches_depend_on_seed_and_epoch_not_on_workers_or_what_was_drawn_before(records: Records) -> None:
    alone = batches(records)
    torch.rand(3)
    assert same(alone, batches(records))
    assert same(alone, batches(records, workers=2))
    assert not same(alone, batches(records, epoch=2))


def test_a_resumed_epoch_is_the_rest_of_the_same_epoch(records: Records) -> None:
    assert same(batches(records, start=2), batches(records)[2:])


def test_an_image_does_not_depend_on_those_read_before_it(records: Records) -> None:
    images = Images(records, DATA, augment=True, seed=4)
    draws = [Draw(item, 7, images.shapes[item]) for item in range(len(images))]
    collate = Collate(32, 8)
    forwards = [collate([images[draw]]) for draw in draws]
    backwards = [collate([images[draw]]) for draw in reversed(draws)][::-1]
    assert same(forwards, backwards)  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", PRESET_NAMES)
def test_batches_keep_their_shapes_and_boxes_are_inside(records: Records, preset: str) -> None:
    data = replace(DATA, augment=preset, turn=None)
    for epoch in range(8):
        for batch in batches(records, data, epoch=epoch):
            assert batch.images.shape[0] == 3 and tuple(batch.images.shape[2:]) in DATA.shapes  # type: ignore[operator]
            for row in range(len(batch.ids)):
                height, width = batch.boxes.sizes[row].tolist()
                assert not batch.images[row, :, height:].any() and not batch.images[row, :, :, width:].any()
                x1, y1, x2, y2 = batch.boxes.xyxy[row][batch.boxes.valid[row]].T
                assert (x1 >= 0).all() and (y1 >= 0).all() and (x1 < x2).all() and (y1 < y2).all()
                assert (x2 <= width + 1e-3).all() and (y2 <= height + 1e-3).all()


def test_batches_without_fixed_shapes_work_too(records: Records) -> None:
    data = replace(DATA, shapes=None, pad=32, mosaic=1.0)
    for batch in batches(records, data):
        assert all(side % 32 == 0 for side in batch.images.shape[2:])


@pytest.mark.parametrize("shapes", [DATA.shapes, None])
def test_without_any_step_the_result_is_that_of_flip_scale_and_colour(
    records: Records, shapes: list[tuple[int, int]] | None
) -> None:
    """Compare with the batches of ``Collate``, which does not use this pipeline then."""
    plain = replace(
        DATA, augment="none", turn=None, color=0.5, flip_vertical=0.5, scale=(0.5, 2.0), shapes=shapes
    )
    images = Images(records, plain, augment=True, seed=4)
    for item, record in enumerate(records.images):
        shape = images.shapes[item]
        batch = Collate(32, 8)([images[Draw(item, 1, shape)]])
        assert isinstance(batch, Batch)
        picture = Picture(read_image(record.path), record.boxes, record.labels, record.crowd)
        size = fit_shape(picture.size, shape, plain)
        found = fit(picture, size, shape, np.random.default_rng([4, 1, item]), plain)
        height, width = batch.boxes.sizes[0].tolist()
        assert torch.equal(found.image, batch.images[0, :, :height, :width])
        np.testing.assert_array_equal(found.boxes, batch.boxes.xyxy[0][batch.boxes.valid[0]])


def test_every_augmentation_has_a_key_a_step_and_a_place_in_the_order() -> None:
    assert ("mosaic", *FIRST, *LAST) == AUGMENTATIONS
    assert set(AUGMENTATIONS) <= set(DataConfig.__dataclass_fields__)
    assert get_args(get_type_hints(DataConfig)["augment"]) == tuple(PRESETS)
    assert all(set(preset) <= set(AUGMENTATIONS) for preset in PRESETS.values())


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_use_none_of_it(name: str) -> None:
    assert not any(load_recipe(name).data.chances.values())


def test_a_key_replaces_the_part_of_a_preset() -> None:
    assert DataConfig(augment="strong").chances["mosaic"] == 0.5
    assert DataConfig(augment="strong", mosaic=0.0).chances["mosaic"] == 0
    assert DataConfig(blur=0.2).chances == dict.fromkeys(AUGMENTATIONS, 0.0) | {"blur": 0.2}
    config = load_recipe("lite0", ["--data.augment=aerial", "--data.crop=0.9"])
    assert config.data.chances["crop"] == 0.9 and config.data.chances["turn"] == 0.75


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--data.augment=strog", r"data\.augment = 'strog'.*none, light, strong, aerial.*'strong'"),
        ("--data.mosaic=1.5", r"data\.mosaic = 1\.5: must be between 0 and 1"),
        ("--data.erase=-1", r"data\.erase = -1\.0: must be between 0 and 1"),
        ("--data.blur=.nan", r"data\.blur = nan: must be between 0 and 1"),
    ],
)
def test_a_value_that_is_not_possible_is_one_message(option: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe("lite0", [option])
    assert "\n" not in str(error.value)


def test_a_mosaic_names_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    records = write_records(tmp_path, eight_pictures())
    broken = records.images[3].path
    broken.write_bytes(broken.read_bytes()[:60])
    images = Images(records, replace(DATA, mosaic=1.0), augment=True)
    errors = {
        str(found) for epoch in range(20) if isinstance(found := images[Draw(0, epoch, (64, 96))], Exception)
    }
    assert len(errors) == 1 and errors.pop().startswith(f"{broken}: does not decode")
