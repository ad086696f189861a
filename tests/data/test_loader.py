"""Batches from image files: padding, scaled boxes, counts, and augmentation from a seed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data.batches import read_batches, same, write_records
from fsaf.config import DataConfig
from fsaf.data.batch import Batch
from fsaf.data.readers.coco import read_coco
from fsaf.data.records import Records
from fsaf.data.sampler import Draw
from fsaf.data.samples import Collate, Images
from fsaf.data.workers import make_loader
from fsaf.errors import UserError
from synthetic import COLORS, GROUND, Picture, write_coco

DATA = DataConfig(
    batch_size=2,
    workers=0,
    flip=0.5,
    flip_vertical=0.5,
    short_side=64,
    long_side=96,
    shapes=[(64, 96), (96, 64)],
)

PICTURES = [
    Picture(height=128, width=192, objects=[(20, 30, 60, 40, 7), (100, 64, 80, 60, 3)]),
    Picture(height=64, width=96, objects=[(8, 8, 20, 12, 90)], crowds=[(50, 10, 40, 40, 3)]),
    Picture(height=120, width=60, objects=[(10, 20, 40, 80, 3)]),
    Picture(height=60, width=60),
    Picture(height=128, width=192, objects=[(0, 0, 192, 128, 90), (6, 6, 50, 50, 7), (90, 60, 40, 30, 3)]),
]


# PyTorch advises against two workers on one core.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Records:
    return write_records(tmp_path_factory.mktemp("coco"), PICTURES)


def test_evaluation_gives_every_image_once(records: Records) -> None:
    found = read_batches(records, DATA)
    assert sorted(id_ for batch in found for id_ in batch.ids) == [11, 12, 13, 14, 15]
    sizes = {image.id: (image.height, image.width) for image in records.images}
    for batch in found:
        assert batch.images.dtype is torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert tuple(batch.images.shape[2:]) in DATA.shapes  # type: ignore[operator]
        assert len(batch.ids) == len(batch.images)
        assert batch.original_sizes == [sizes[id_] for id_ in batch.ids]
        assert batch.seconds > 0 and batch.cut == 0


def test_padding_is_zero_and_boxes_are_where_the_pixels_are(records: Records) -> None:
    for batch in read_batches(records, DATA):
        for row, id_ in enumerate(batch.ids):
            picture = PICTURES[id_ - 11]
            image, (h, w) = batch.images[row], batch.boxes.sizes[row].tolist()
            assert not image[:, h:].any() and not image[:, :, w:].any()
            assert image[:, :h, :w].any()
            scale = min(64 / min(picture.height, picture.width), 96 / max(picture.height, picture.width))
            assert (h, w) == (round(picture.height * scale), round(picture.width * scale))
            valid = batch.boxes.valid[row]
            assert int(valid.sum()) == len(picture.objects) + len(picture.crowds)
            assert batch.boxes.crowd[row][valid].tolist() == [False] * len(picture.objects) + [True] * len(
                picture.crowds
            )
            expected = [[scale * v for v in (x, y, x + a, y + b)] for x, y, a, b, _ in picture.objects]
            found = batch.boxes.xyxy[row, : len(expected)].numpy()
            np.testing.assert_allclose(found, np.reshape(expected, (-1, 4)), atol=1e-4)


def painted(batch: Batch, row: int) -> None:
    """Assert that each box's centre has the colour of its category, and the rest is ground."""
    image = batch.images[row].permute(1, 2, 0).numpy().astype(int)
    h, w = batch.boxes.sizes[row].tolist()
    outside = np.ones((h, w), bool)
    picture = PICTURES[batch.ids[row] - 11]
    for box, label in zip(batch.boxes.xyxy[row].tolist(), batch.boxes.labels[row].tolist(), strict=True):
        x1, y1, x2, y2 = box
        outside[max(0, int(y1) - 1) : int(y2) + 2, max(0, int(x1) - 1) : int(x2) + 2] = False
        if x2 > x1 and len(picture.objects) == 1 and not batch.boxes.crowd[row].any():
            middle = image[int((y1 + y2) / 2), int((x1 + x2) / 2)]
            assert np.abs(middle - COLORS[sorted(COLORS)[label]]).max() <= 2
    ground = image[:h, :w][outside]
    assert not len(ground) or np.abs(ground - GROUND).max() <= 2


def test_scaled_batches_keep_their_shapes_and_boxes_their_pixels(records: Records) -> None:
    data = replace(DATA, scale=(0.6, 1.6))
    sizes = set()
    for epoch in range(6):
        for batch in read_batches(records, data, train=True, epoch=epoch):
            assert tuple(batch.images.shape[2:]) in DATA.shapes  # type: ignore[operator]
            for row in range(len(batch.ids)):
                painted(batch, row)
                height, width = batch.boxes.sizes[row].tolist()
                sizes.add(height)
                assert not batch.images[row, :, height:].any() and not batch.images[row, :, :, width:].any()
                x1, y1, x2, y2 = batch.boxes.xyxy[row][batch.boxes.valid[row]].T
                assert (x1 >= 0).all() and (y1 >= 0).all()
                assert (x2 <= width + 1e-3).all() and (y2 <= height + 1e-3).all()
    assert len(sizes) >= 10


def test_colours_vary_and_boxes_do_not(records: Records) -> None:
    plain = read_batches(records, DATA, train=True)
    varied = read_batches(records, replace(DATA, color=0.5), train=True)
    for a, b in zip(plain, varied, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.boxes, b.boxes, strict=True))
        assert not torch.equal(a.images, b.images)
    again = read_batches(records, replace(DATA, color=0.5), train=True)
    assert all(torch.equal(a.images, b.images) for a, b in zip(varied, again, strict=True))


def test_augmentation_mirrors_boxes_with_their_pixels(records: Records) -> None:
    seen = set()
    for epoch in range(6):
        for batch in read_batches(records, DATA, train=True, epoch=epoch):
            for row in range(len(batch.ids)):
                painted(batch, row)
            seen |= {
                tuple(batch.boxes.xyxy[row, 0].round().int().tolist())
                for row, id_ in enumerate(batch.ids)
                if id_ == 11
            }
    assert len(seen) == 4  # unchanged, flipped either way, both


def test_short_batches_are_filled_with_blank_rows(records: Records) -> None:
    found = read_batches(records, replace(DATA, batch_size=4), train=True)
    assert sorted(id_ for batch in found for id_ in batch.ids) == [11, 12, 13, 14, 15]
    for batch in found:
        assert len(batch.images) == 4
        for row in range(len(batch.ids), 4):
            assert not batch.images[row].any() and not batch.boxes.valid[row].any()
            assert batch.boxes.sizes[row].tolist() == [0, 0]
    assert sum(4 - len(batch.ids) for batch in found) == 3


def test_every_training_batch_has_the_same_number_of_boxes_and_cuts_are_counted(records: Records) -> None:
    found = read_batches(records, replace(DATA, max_boxes=2), train=True)
    assert {tuple(batch.boxes.xyxy.shape[1:]) for batch in found} == {(2, 4)}
    assert sum(batch.cut for batch in found) == 1  # image 15 has three boxes


def test_evaluation_cuts_no_boxes(records: Records) -> None:
    found = read_batches(records, replace(DATA, max_boxes=1))
    assert sum(batch.cut for batch in found) == 0
    assert sum(int(batch.boxes.valid.sum()) for batch in found) == 8


def test_batches_are_a_function_of_seed_and_epoch_not_of_workers(records: Records) -> None:
    options = {"train": True, "seed": 4, "epoch": 2}
    alone = read_batches(records, DATA, **options)
    assert same(alone, read_batches(records, DATA, **options))
    assert same(alone, read_batches(records, DATA, **{**options, "workers": 2}))
    assert not same(alone, read_batches(records, DATA, **{**options, "epoch": 3}))
    assert not same(alone, read_batches(records, DATA, **{**options, "seed": 5}))


def test_workers_read_after_opencv_has_used_threads(records: Records) -> None:
    """A fork copies OpenCV's list of threads, but not the threads."""
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(4)
        cv2.resize(np.zeros((1500, 1500, 3), np.uint8), (2900, 2900))
        assert same(read_batches(records, DATA, workers=1), read_batches(records, DATA))
    finally:
        cv2.setNumThreads(threads)


def test_augmentation_of_an_image_depends_on_no_other(records: Records) -> None:
    images = Images(records, DATA, augment=True, seed=4)
    draws = [Draw(item, 7, images.shapes[item]) for item in range(len(images))]
    forwards = [images[draw].boxes.tolist() for draw in draws]
    backwards = [images[draw].boxes.tolist() for draw in reversed(draws)]
    assert forwards == backwards[::-1]


def test_persistent_workers_follow_the_epoch(records: Records) -> None:
    loader, sampler = make_loader(Images(records, DATA, augment=True), 2, workers=1, train=True)
    for epoch in (1, 0):
        sampler.set_epoch(epoch)
        assert same(list(loader), read_batches(records, DATA, train=True, epoch=epoch))


def test_a_padded_batch_is_as_large_as_its_images_need(records: Records) -> None:
    data = replace(DATA, shapes=None, pad=32, batch_size=5, short_side=60, long_side=90)
    (batch,) = read_batches(records, data)
    # 60 x 90, 60 x 90, 90 x 45, 60 x 60, 60 x 90
    assert tuple(batch.images.shape) == (5, 3, 96, 96)
    assert sorted(map(tuple, batch.boxes.sizes.tolist())) == [
        (60, 60),
        (60, 90),
        (60, 90),
        (60, 90),
        (90, 45),
    ]


def test_a_batch_of_blank_rows_alone_is_large_enough_for_the_network(records: Records) -> None:
    images = Images(records, replace(DATA, shapes=None, pad=1), augment=True)
    batch = Collate(1, 3)([images[Draw(-1, 0, None)]] * 2)
    assert batch.images.shape[0] == 2 and min(batch.images.shape[2:]) >= 32
    assert batch.ids == [] and not batch.boxes.valid.any()


def test_sizes_are_those_of_the_file_where_the_annotations_say_otherwise(tmp_path: Path) -> None:
    annotations = write_coco(tmp_path, [Picture(height=64, width=96, objects=[(8, 8, 20, 12, 90)])])
    Image.new("RGB", (192, 128), GROUND).save(tmp_path / "images" / "train" / "0011.png")
    (batch,) = read_batches(read_coco(annotations, tmp_path / "images" / "train"), DATA)
    assert batch.original_sizes == [(128, 192)]
    assert batch.boxes.sizes.tolist() == [[64, 96]]
    assert batch.boxes.xyxy[0, 0].tolist() == [4, 4, 14, 10]


def test_training_refuses_an_image_of_another_size_than_its_boxes_are_for(tmp_path: Path) -> None:
    annotations = write_coco(tmp_path, [Picture(height=64, width=96, objects=[(8, 8, 20, 12, 90)])])
    path = tmp_path / "images" / "train" / "0011.png"
    records = read_coco(annotations, path.parent)
    Image.new("RGB", (97, 63), GROUND).save(path)  # a difference of one pixel is allowed
    read_batches(records, DATA, train=True)
    Image.new("RGB", (64, 96), GROUND).save(path)
    with pytest.raises(UserError, match=r"0011\.png: 64 x 96 pixels, but 96 x 64 in .*train\.json \(id 11\)"):
        read_batches(records, DATA, train=True)


def test_the_limit_of_pixels_holds_for_batches(tmp_path: Path) -> None:
    annotations = write_coco(tmp_path, [Picture(height=64, width=96, objects=[(8, 8, 20, 12, 90)])])
    records = read_coco(annotations, tmp_path / "images" / "train")
    assert read_batches(records, replace(DATA, max_pixels=64 * 96))
    with pytest.raises(UserError, match=r"0011\.png: .*data\.max_pixels = 6,143"):
        read_batches(records, replace(DATA, max_pixels=64 * 96 - 1))


def test_an_error_in_the_training_process_stays_as_it_is(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loader without workers must not blame a worker."""

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("fsaf.data.samples.read_image", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        read_batches(records, DATA)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_does_not_decode_is_one_clear_message(tmp_path: Path, workers: int) -> None:
    annotations = write_coco(tmp_path, PICTURES[:2])
    broken = tmp_path / "images" / "train" / "0012.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(UserError) as error:
        read_batches(read_coco(annotations, tmp_path / "images" / "train"), DATA, workers=workers)
    assert str(error.value).startswith(f"{broken}: does not decode as an image")
    assert "Traceback" not in str(error.value) and "\n" not in str(error.value)
