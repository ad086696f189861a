"""Test opening the splits of a config, and what training leaves out."""

import json
from pathlib import Path

import pytest

from fsaf.config import Config, DataConfig, SplitConfig, TrainConfig
from fsaf.data.readers.coco import read_coco
from fsaf.data.readers.splits import open_split
from fsaf.data.records import Classes, Records
from fsaf.errors import DataError, UserError
from fsaf.training.prepare import for_training, open_for_training
from synthetic import Picture, write_coco

SPLIT = SplitConfig(annotations="annotations/train.json", images="images/train")


def read(folder: Path, pictures: list[Picture]) -> Records:
    return read_coco(write_coco(folder, pictures), folder / "images" / "train")


def test_paths_start_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(tmp_path, [Picture(height=40, width=40, objects=[(1, 1, 20, 20, 7)])])
    records = open_split(DataConfig(root=str(tmp_path), train=SPLIT), "train")
    assert [image.id for image in records.images] == [11]
    monkeypatch.chdir(tmp_path)
    assert open_split(DataConfig(train=SPLIT), "train").source == Path("annotations/train.json")
    absolute = SplitConfig(
        annotations=str(tmp_path / "annotations" / "train.json"), images=str(tmp_path / "images" / "train")
    )
    other = DataConfig(root="elsewhere", val=absolute)
    assert open_split(other, "val", Classes(names=("red",), ids=(7,))).classes.ids == (7,)


def test_a_split_that_is_not_set_names_its_key() -> None:
    with pytest.raises(UserError, match=r"data\.val\.annotations is not set.*--data\.val\.annotations PATH"):
        open_split(DataConfig(), "val")


def test_annotations_are_enough_to_train(tmp_path: Path) -> None:
    """Images are found beside the annotations, and a note says that nothing is evaluated."""
    file = write_coco(tmp_path, [Picture(height=40, width=40, objects=[(1, 1, 20, 20, 7)])])
    for root in (None, str(tmp_path)):
        data = DataConfig(root=root, train=SplitConfig(annotations=str(file)))
        train, val, notes = open_for_training(Config(data=data))
        assert train.images[0].path.is_file() and val is None
        assert any("no validation split" in note and "best.pt" in note for note in notes)


def test_training_without_a_validation_split_is_told(tmp_path: Path) -> None:
    """The config asks for evaluations; without a split there are none, and no ``best.pt``."""
    write_coco(tmp_path, [Picture(height=40, width=40, objects=[(1, 1, 20, 20, 7)])])
    data = DataConfig(root=str(tmp_path), train=SPLIT)
    _, validation, notes = open_for_training(Config(data=data))
    assert validation is None and any("no validation split" in note and "best.pt" in note for note in notes)
    asked_for = Config(data=data, train=TrainConfig(evaluate_every=0))
    assert not any("best.pt" in note for note in open_for_training(asked_for)[2])


def test_other_classes_to_evaluate_on_are_refused_without_talk_of_a_checkpoint(tmp_path: Path) -> None:
    """A new training has no checkpoint."""
    write_coco(tmp_path, [Picture(height=40, width=40, objects=[(1, 1, 20, 20, 7)])])
    val = write_coco(tmp_path, [Picture(height=40, width=40)], "val")
    val.write_text(val.read_text().replace("green", "teal"))
    with pytest.raises(
        UserError, match="the detector has 3 classes, category 3 is 'green'; here it is 'teal'"
    ) as error:
        open_for_training(Config(data=DataConfig(root=str(tmp_path))))
    assert "checkpoint" not in str(error.value)


def test_half_a_validation_split_is_refused(tmp_path: Path) -> None:
    """Images without annotations are a mistake; evaluation is not silently turned off."""
    write_coco(tmp_path, [Picture(height=40, width=40, objects=[(1, 1, 20, 20, 7)])])
    data = DataConfig(root=str(tmp_path), train=SPLIT, val=SplitConfig(images="images/train"))
    with pytest.raises(UserError, match=r"data\.val\.annotations is not set"):
        open_for_training(Config(data=data))
    config = Config(data=data, train=TrainConfig(evaluate_every=0))
    assert open_for_training(config)[1] is None


def test_training_leaves_out_images_without_boxes_and_small_ones(tmp_path: Path) -> None:
    pictures = [
        Picture(height=40, width=40, objects=[(1, 1, 20, 20, 7)]),
        Picture(height=40, width=40),
        Picture(height=31, width=400, objects=[(1, 1, 20, 20, 7)]),
        Picture(height=32, width=32, objects=[(1, 1, 20, 20, 3), (1, 1, 0, 5, 3)]),
    ]
    records = read(tmp_path, pictures)
    kept, notes = for_training(records, DataConfig())
    assert [image.id for image in kept.images] == [11, 14]
    assert kept.classes == records.classes and kept.source == records.source
    assert notes == [
        "images with a side under 32 pixels (data.min_size): 1 of 4 left out",
        "images without boxes: 1 of 4 left out; --data.keep_empty true trains on them",
        "boxes under a pixel or outside their image: 1 of 4 left out",
        "classes without a box to train on: 1 of 3 (blue)",
    ]
    kept, notes = for_training(records, DataConfig(keep_empty=True, min_size=1))
    assert [image.id for image in kept.images] == [11, 12, 13, 14]
    assert len(notes) == 2


def test_boxes_beyond_the_limit_are_counted_at_the_start(tmp_path: Path) -> None:
    few, many = (Picture(height=40, width=40, objects=[(i, 1, 20, 20, 7) for i in range(n)]) for n in (2, 5))
    _, notes = for_training(read(tmp_path, [few, many, many]), DataConfig(max_boxes=3))
    assert (
        "images with more than 3 boxes (data.max_boxes): 2 of 3, which lose 4 of 12 boxes, the smallest"
        in notes
    )


def tiny_boxes(folder: Path, large: int = 0) -> Config:
    """Return a config for three boxes of 2 x 2 pixels, and ``large`` others, at a quarter of their size."""
    objects = [(4 + 8 * i, 4, 2, 2, 7) for i in range(3)] + [(10, 100, 300, 200, 3)] * large
    write_coco(folder, [Picture(height=512, width=512, objects=objects)])
    data = DataConfig(root=str(folder), train=SPLIT, short_side=128, long_side=128)
    return Config(data=data, train=TrainConfig(evaluate_every=0))


def test_data_of_which_nothing_can_be_learned_is_refused(tmp_path: Path) -> None:
    """The loss would be that of the background alone, and AP 0 at the end."""
    with pytest.raises(DataError, match=r"train\.json: none of its 3 boxes can be learned.*fsaf check "):
        open_for_training(tiny_boxes(tmp_path))
    config = tiny_boxes(tmp_path, large=1)
    notes = " ".join(open_for_training(config)[2])
    assert "boxes that no location can learn at this resize: 3 of 4" in notes and "fsaf check " in notes
    config = tiny_boxes(tmp_path)
    config.model.branches = ["anchor_free", "anchor_based"]  # whose nearest anchor always learns
    assert len(open_for_training(config)[0].images) == 1


@pytest.mark.parametrize("crowds", [[], [(1, 1, 20, 20, 7)]], ids=["empty", "crowd only"])
def test_no_boxes_at_all_is_refused(tmp_path: Path, crowds: list[tuple[int, int, int, int, int]]) -> None:
    records = read(tmp_path, [Picture(height=40, width=40, crowds=crowds)])
    with pytest.raises(UserError, match=r"train\.json: no boxes at all"):
        for_training(records, DataConfig(keep_empty=True))


def test_no_image_large_enough_is_refused(tmp_path: Path) -> None:
    records = read(tmp_path, [Picture(height=40, width=40, objects=[(1, 1, 20, 20, 7)])])
    with pytest.raises(UserError, match=r"under 41 pixels \(data\.min_size\)"):
        for_training(records, DataConfig(min_size=41))


def test_nothing_left_for_two_reasons_names_both(tmp_path: Path) -> None:
    """One image is small, the other has no box: the message must not say that every image is small."""
    pictures = [Picture(height=40, width=40, objects=[(1, 1, 20, 20, 7)]), Picture(height=50, width=50)]
    with pytest.raises(UserError, match=r"data\.min_size\) or without boxes \(data\.keep_empty"):
        for_training(read(tmp_path, pictures), DataConfig(min_size=41))


def test_a_listed_image_that_is_not_there_is_named_before_training(tmp_path: Path) -> None:
    records = read(tmp_path, [Picture(height=40, width=40, objects=[(1, 1, 20, 20, 7)])] * 2)
    records.images[1].path.unlink()
    with pytest.raises(UserError, match=r"0012\.png: no such image \(listed in .*train\.json, id 12\)"):
        for_training(records, DataConfig())


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    path = write_coco(tmp_path, [])
    assert json.loads(path.read_text())["images"] == []
    with pytest.raises(UserError, match=r"train\.json: lists no images"):
        open_split(DataConfig(root=str(tmp_path), train=SPLIT), "train")
