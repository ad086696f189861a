"""COCO JSON to records: ids become labels, and every kind of broken file is one clear message."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from fsaf.data.readers.coco import read_coco
from fsaf.data.records import Classes, Records
from fsaf.errors import UserError

GOOD: dict[str, Any] = {
    "images": [
        {"id": 5, "file_name": "a.jpg", "width": 100, "height": 50},
        {"id": 2, "file_name": "deep/b.jpg", "width": 40, "height": 60},
        {"id": 9, "file_name": "empty.jpg", "width": 40, "height": 60},
    ],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": 90, "bbox": [10, 20, 30, 10], "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 3, "bbox": [0.5, 0.5, 39.0, 20.25]},
        {"id": 3, "image_id": 5, "category_id": 3, "bbox": [0, 0, 60, 40], "iscrowd": 1},
    ],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}, {"id": 17, "name": "cat"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path


def read(folder: Path, content: Any, classes: Classes | None = None) -> Records:
    path = folder / "train.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_coco(path, folder / "images", classes)


def changed(*keys: Any, value: Any = ..., drop: bool = False) -> dict[str, Any]:
    """Return ``GOOD`` with one entry replaced or dropped."""
    data = copy.deepcopy(GOOD)
    at: Any = data
    for key in keys[:-1]:
        at = at[key]
    if drop:
        del at[keys[-1]]
    else:
        at[keys[-1]] = value
    return data


def test_sparse_ids_become_labels_in_order_of_id(folder: Path) -> None:
    records = read(folder, GOOD)
    assert records.classes == Classes(names=("car", "cat", "toothbrush"), ids=(3, 17, 90))
    assert records.source == folder / "train.json" and records.dropped == 0
    first, second, empty = records.images
    assert [image.id for image in records.images] == [5, 2, 9]
    assert (first.width, first.height, first.path) == (100, 50, folder / "images" / "a.jpg")
    assert second.path == folder / "images" / "deep" / "b.jpg"
    assert first.labels.tolist() == [2, 0] and first.crowd.tolist() == [False, True]
    assert first.boxes.tolist() == [[10, 20, 40, 30], [0, 0, 60, 40]]
    assert second.boxes.tolist() == [[0.5, 0.5, 39.5, 20.75]]
    for image in records.images:
        assert (image.boxes.dtype, image.labels.dtype, image.crowd.dtype) == (np.float32, np.int64, bool)
    assert empty.boxes.shape == (0, 4) and empty.labels.shape == (0,) and empty.crowd.shape == (0,)


@pytest.mark.parametrize(
    ("bbox", "kept"),
    [
        ([-5, -6, 20, 20], [0, 0, 15, 14]),
        ([90, 40, 50, 50], [90, 40, 100, 50]),
        ([-10, -10, 500, 500], [0, 0, 100, 50]),
        ([99, 49, 1, 1], [99, 49, 100, 50]),
        ([10, 10, 0.99, 20], None),
        ([10, 10, 20, 0], None),
        ([10, 10, -5, 20], None),
        ([100, 10, 20, 20], None),
        ([10, 60, 20, 20], None),
        ([-30, 10, 20, 20], None),
    ],
)
def test_boxes_are_clipped_and_those_without_area_are_counted(
    folder: Path, bbox: list[float], kept: list[float] | None
) -> None:
    records = read(folder, changed("annotations", 0, "bbox", value=bbox))
    boxes = records.images[0].boxes.tolist()
    assert boxes == ([kept] if kept else []) + [[0, 0, 60, 40]]
    assert records.dropped == (kept is None)


def test_annotations_marked_ignore_are_left_out(folder: Path) -> None:
    records = read(folder, changed("annotations", 0, "ignore", value=1))
    assert records.images[0].labels.tolist() == [0] and records.dropped == 0


BROKEN = {
    "not JSON": ("{'images': []}", "not readable as JSON"),
    "cut short": (json.dumps(GOOD)[:200], "not readable as JSON"),
    "empty file": ("", "not readable as JSON"),
    "a list": ("[]", "'images'"),
    "a number": ("3", "'images'"),
    "no images": (changed("images", drop=True), "'images'"),
    "no annotations": (changed("annotations", drop=True), "'annotations'"),
    "no categories": (changed("categories", drop=True), "'categories'"),
    "images no list": (changed("images", value={"5": {}}), "'images'"),
    "categories empty": (changed("categories", value=[]), "at least one class"),
    "category no object": (changed("categories", 0, value="car"), "category 'car'"),
    "category without id": (changed("categories", 0, "id", drop=True), "toothbrush"),
    "category without name": (changed("categories", 0, "name", drop=True), "category {'id': 90}"),
    "category id of words": (changed("categories", 0, "id", value="ninety"), "'ninety'"),
    "category id true": (changed("categories", 0, "id", value=True), "True"),
    "category id twice": (changed("categories", 0, "id", value=3), "category id 3 appears twice"),
    "image no object": (changed("images", 0, value=7), "image 7"),
    "image without id": (changed("images", 0, "id", drop=True), "a.jpg"),
    "image id fraction": (changed("images", 0, "id", value=5.5), "5.5"),
    "image id twice": (changed("images", 0, "id", value=2), "image id 2 appears twice"),
    "image without file": (changed("images", 0, "file_name", drop=True), "'file_name'"),
    "image file number": (changed("images", 0, "file_name", value=3), "'file_name'"),
    "image without width or file": (changed("images", 0, "width", drop=True), "train.json gives no size"),
    "image id beyond integers": (changed("images", 0, "id", value=2**63), "image {'id': 92233720368"),
    "image width beyond integers": (changed("images", 0, "width", value=10**400), "'width'"),
    "image height of words": (changed("images", 0, "height", value="tall"), "train.json gives no size"),
    "file leaves": (changed("images", 0, "file_name", value="../secret.jpg"), "'../secret.jpg' leaves"),
    "file leaves inside": (changed("images", 0, "file_name", value="a/../../b.jpg"), "a/../../b.jpg"),
    "file absolute": (changed("images", 0, "file_name", value="/etc/passwd"), "'/etc/passwd' leaves"),
    "annotation no object": (changed("annotations", 0, value=[]), "annotation []"),
    "annotation without image": (changed("annotations", 0, "image_id", drop=True), "'image_id'"),
    "annotation image text": (
        changed("annotations", 0, "image_id", value="five"),
        "image 'five', which is not",
    ),
    "annotation without category": (changed("annotations", 0, "category_id", drop=True), "'category_id'"),
    "unknown image": (changed("annotations", 0, "image_id", value=44), "image 44, which is not listed"),
    "unknown category": (changed("annotations", 0, "category_id", value=44), "category 44"),
    "no bbox": (changed("annotations", 1, "bbox", drop=True), "annotation 2 has bbox None"),
    "bbox of three": (changed("annotations", 1, "bbox", value=[1, 2, 3]), r"bbox [1, 2, 3]"),
    "bbox text": (changed("annotations", 1, "bbox", value=[1, 2, 3, "4"]), "'4'"),
    "bbox null": (changed("annotations", 1, "bbox", value=[1, 2, None, 4]), "None"),
    "bbox NaN": (changed("annotations", 1, "bbox", value=[1, 2, math.nan, 4]), "nan"),
    "bbox infinite": (changed("annotations", 1, "bbox", value=[1, 2, math.inf, 4]), "inf"),
    "bbox beyond floats": (
        changed("annotations", 1, "bbox", value=[1, 2, 10**400, 4]),
        "annotation 2 has bbox",
    ),
    "bbox object": (changed("annotations", 1, "bbox", value={"x": 1}), "{'x': 1}"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_message_with_file_and_value(folder: Path, name: str) -> None:
    content, told = BROKEN[name]
    with pytest.raises(UserError) as error:
        read(folder, content)
    message = str(error.value)
    assert str(folder / "train.json") in message
    assert told in message
    assert len(message) < 400 + 2 * len(str(folder)) and "\n" not in message


def test_not_text(folder: Path) -> None:
    (folder / "train.json").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(UserError, match=r"train\.json: not readable as JSON"):
        read_coco(folder / "train.json", folder / "images")


def test_nested_too_deeply(folder: Path) -> None:
    with pytest.raises(UserError, match=r"train\.json"):
        read(folder, "[" * 100_000)


def test_missing_annotation_file_and_folder_in_its_place(folder: Path) -> None:
    for path in (folder / "none.json", folder / "images"):
        with pytest.raises(UserError, match=f"{path}: no such file"):
            read_coco(path, folder / "images")


def test_missing_image_folder_names_both(folder: Path) -> None:
    (folder / "train.json").write_text(json.dumps(GOOD))
    with pytest.raises(UserError, match=r"nowhere: no such image folder \(needed by .*train\.json"):
        read_coco(folder / "train.json", folder / "nowhere")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
places = st.sampled_from(
    [(group,) for group in GOOD]
    + [(group, 0) for group in GOOD]
    + [(group, 0, key) for group, entries in GOOD.items() for key in entries[0]]
    + [("annotations", 0, "bbox", i) for i in range(4)]
)


@given(place=places, value=values | st.integers(-(10**400), 10**400))
@settings(max_examples=200)
def test_any_value_anywhere_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: tuple[Any, ...], value: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / "anywhere"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    try:
        records = read(folder, changed(*place, value=value))
    except UserError as error:
        assert str(folder / "train.json") in str(error)
        return
    for image in records.images:
        assert np.isfinite(image.boxes).all()
        assert (image.boxes[:, 2:] > image.boxes[:, :2]).all()
        assert (image.boxes >= 0).all() and (image.boxes[:, [0, 2]] <= image.width).all()
        assert (image.labels >= 0).all() and (image.labels < len(records.classes)).all()


# Classes of a detector.


def test_classes_of_a_checkpoint_order_the_labels(folder: Path) -> None:
    wanted = Classes(names=("toothbrush", "car"), ids=(90, 3))
    records = read(folder, GOOD, wanted)
    assert records.classes is wanted
    assert records.images[0].labels.tolist() == [0, 1] and records.images[1].labels.tolist() == [1]


def test_categories_that_a_checkpoint_does_not_know_are_left_out(folder: Path) -> None:
    records = read(folder, GOOD, Classes(names=("car",), ids=(3,)))
    assert [image.labels.tolist() for image in records.images] == [[0], [0], []]
    assert records.dropped == 0


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (Classes(names=("car", "dog"), ids=(3, 4)), "category 4 is 'dog'; here it is None, of 3"),
        (Classes(names=("bus",), ids=(3,)), "category 3 is 'bus'; here it is 'car'"),
        (Classes(names=("b" * 5000,), ids=(3,)), "here it is 'car'"),
        (Classes(names=tuple("abcdefgh"), ids=tuple(range(1, 9))), "has 8 classes"),
    ],
)
def test_a_checkpoint_of_other_classes_is_refused(folder: Path, wanted: Classes, told: str) -> None:
    with pytest.raises(UserError) as error:
        read(folder, GOOD, wanted)
    assert told in str(error.value) and str(folder / "train.json") in str(error.value)
    assert len(str(error.value)) < 400 + len(str(folder))


@pytest.mark.parametrize("split", ["train", "test"])
def test_real_annotations_read_as_pycocotools_reads_them(
    test_data: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = test_data / "bccd" / "annotations" / f"instances_{split}.json"
    records = read_coco(path, test_data / "bccd" / "images")
    truth = COCO(str(path))
    assert {image.id for image in records.images} == set(truth.imgs)
    assert sum(len(image.boxes) for image in records.images) + records.dropped == len(truth.anns)
    assert {name: id_ for id_, name in zip(records.classes.ids, records.classes.names, strict=True)} == {
        entry["name"]: entry["id"] for entry in truth.cats.values()
    }
    for image in records.images:
        found = truth.imgToAnns[image.id]
        if len(found) != len(image.boxes):
            continue
        assert [records.classes.ids[label] for label in image.labels] == [a["category_id"] for a in found]
        x, y, width, height = np.array([a["bbox"] for a in found], float).reshape(-1, 4).T
        expected = np.stack((x, y, x + width, y + height), 1)
        expected = expected.clip(0, [image.width, image.height] * 2)
        np.testing.assert_allclose(image.boxes, expected, atol=1e-3)
