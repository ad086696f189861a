"""The built-in data set, checked from its files alone when possible."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import fsaf.data.digits as digits_module
from fsaf.data import digit_pictures
from fsaf.data.digits import write_digits
from fsaf.data.readers.coco import read_coco
from fsaf.errors import UserError

TRAIN, VAL = 80, 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("data") / "digits", train=TRAIN, val=VAL)


def coco(folder: Path, split: str) -> dict[str, Any]:
    return json.loads((folder / "annotations" / f"{split}.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    """Contents of every file below, by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first = files(write_digits(tmp_path / "a", train=4, val=3, seed=5))
    again = files(write_digits(tmp_path / "b" / "deeper", train=4, val=3, seed=5))
    other = files(write_digits(tmp_path / "c", train=4, val=3, seed=6))
    assert len(first) == 4 + 3 + 2
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_pictures_do_not_depend_on_how_many_there_are(folder: Path, tmp_path: Path) -> None:
    few, many = files(write_digits(tmp_path / "few", train=3, val=2)), files(folder)
    pictures = [name for name in few if name.endswith(".jpg")]
    assert len(pictures) == 5
    assert all(few[name] == many[name] for name in pictures)
    assert len({many[name] for name in many}) == len(many)


@pytest.mark.parametrize(("split", "count"), [("train", TRAIN), ("val", VAL)])
def test_pycocotools_reads_it(
    folder: Path, split: str, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = COCO(str(folder / "annotations" / f"{split}.json"))
    assert len(truth.imgs) == count
    assert sorted(truth.cats) == list(range(1, 11))
    assert [truth.cats[i]["name"] for i in range(1, 11)] == list("0123456789")
    assert len(truth.anns) == len(truth.dataset["annotations"]), "annotation ids repeat"
    assert {p.name for p in (folder / "images" / split).iterdir()} == {
        i["file_name"] for i in truth.imgs.values()
    }
    for image_id, entry in truth.imgs.items():
        with Image.open(folder / "images" / split / entry["file_name"]) as image:
            assert (image.size, image.mode) == ((320, 256), "RGB")
        assert (entry["width"], entry["height"]) == (320, 256)
        assert 1 <= len(truth.imgToAnns[image_id]) <= 6
    for annotation in truth.anns.values():
        x, y, w, h = annotation["bbox"]
        assert 0 <= x < x + w <= 320 and 0 <= y < y + h <= 256
        assert annotation["area"] == w * h and annotation["iscrowd"] == 0
    perfect = [{**a, "score": 0.9} for a in truth.dataset["annotations"]]
    evaluation = COCOeval(truth, truth.loadRes(perfect), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == 1.0
    capsys.readouterr()


def test_package_reads_it(folder: Path) -> None:
    records = read_coco(folder / "annotations" / "val.json", folder / "images" / "val")
    assert records.classes.names == tuple("0123456789")
    assert records.dropped == 0
    assert sum(len(image.boxes) for image in records.images) == len(coco(folder, "val")["annotations"])


def test_splits_share_no_digit_image(folder: Path) -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    used = {}
    for split in ("train", "val"):
        annotations = coco(folder, split)["annotations"]
        for annotation in annotations:
            assert annotation["category_id"] == bunch.target[annotation["digit"]] + 1
        used[split] = {bunch.images[a["digit"]].tobytes() for a in annotations}
        assert {a["category_id"] for a in annotations} == set(range(1, 11))
    assert min(len(used["train"]), len(used["val"])) > 50
    assert not used["train"] & used["val"]


def test_splits_share_no_part_of_a_photograph() -> None:
    from sklearn.datasets import load_sample_images

    parts = digits_module._load_source(0).photos
    for photo, train, val in zip(load_sample_images().images, parts["train"], parts["val"], strict=True):
        np.testing.assert_array_equal(np.hstack([np.asarray(train), np.asarray(val)]), photo)
        assert val.width > 200


def test_heights_use_several_levels(folder: Path) -> None:
    annotations = [a for split in ("train", "val") for a in coco(folder, split)["annotations"]]
    heights = np.array([a["bbox"][3] for a in annotations])
    assert heights.min() >= 20 and heights.max() <= 220
    share = np.histogram(heights, [20, 48, 96, 221])[0] / len(heights)
    assert share.min() > 0.25
    assert (heights <= 28).any() and (heights >= 190).any()


def test_some_digits_overlap(folder: Path) -> None:
    pairs = 0
    truth = COCO(str(folder / "annotations" / "train.json"))
    for annotations in truth.imgToAnns.values():
        boxes = [a["bbox"] for a in annotations]
        for i, (x, y, w, h) in enumerate(boxes):
            pairs += sum(x < u + s and u < x + w and y < v + t and v < y + h for u, v, s, t in boxes[:i])
    assert pairs > TRAIN / 10


def test_boxes_are_tight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On black, the box is where the bright pixels of the written JPEG end, to a pixel."""
    monkeypatch.setattr(digit_pictures, "_background", lambda rng, photo: Image.new("RGB", (320, 256)))
    folder = write_digits(tmp_path / "black", train=60, val=1)
    truth = COCO(str(folder / "annotations" / "train.json"))
    checked = 0
    for image_id, entry in truth.imgs.items():
        grey = np.asarray(Image.open(folder / "images" / "train" / entry["file_name"]).convert("L"))
        boxes = [a["bbox"] for a in truth.imgToAnns[image_id]]
        for x, y, w, h in boxes:
            x1, y1, x2, y2 = x - 6, y - 6, x + w + 6, y + h + 6
            alone = sum(x1 < u + s and u < x2 and y1 < v + t and v < y2 for u, v, s, t in boxes) == 1
            if not alone:
                continue
            top, left = max(y1, 0), max(x1, 0)
            around = grey[top:y2, left:x2].astype(float)
            bright = around > 0.5 * np.quantile(grey[y : y + h, x : x + w], 0.95)
            rows, columns = np.flatnonzero(bright.any(1)) + top, np.flatnonzero(bright.any(0)) + left
            found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert np.abs(np.array(found) - [x, y, x + w, y + h]).max() <= 1, (entry["file_name"], found)
            checked += 1
    assert checked > 60


@pytest.mark.parametrize("split", ["train", "val"])
def test_digits_stand_out(folder: Path, split: str) -> None:
    """Inside each box lie two shades that differ, or no one could read the digit."""
    truth = COCO(str(folder / "annotations" / f"{split}.json"))
    for entry in truth.imgs.values():
        grey = np.asarray(Image.open(folder / "images" / split / entry["file_name"]).convert("L"))
        for annotation in truth.imgToAnns[entry["id"]]:
            x, y, w, h = annotation["bbox"]
            inside = np.quantile(grey[y - 2 : y + h + 2, x - 2 : x + w + 2], (0.1, 0.9))
            assert np.ptp(inside) > 25, (entry["file_name"], annotation)


def test_complete_folder_is_reused(tmp_path: Path) -> None:
    folder = write_digits(tmp_path / "digits", train=2, val=1)
    picture = folder / "images" / "train" / "000001.jpg"
    picture.write_bytes(b"mine")
    assert write_digits(folder, train=2, val=1) == folder
    assert picture.read_bytes() == b"mine"


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    folder = write_digits(tmp_path / "digits", train=1, val=1)
    assert len(files(folder)) == 4


def _other_settings(folder: Path) -> None:
    write_digits(folder, train=2, val=1, seed=9)


def _missing_picture(folder: Path) -> None:
    (write_digits(folder, train=2, val=1) / "images" / "val" / "000001.jpg").unlink()


def _missing_split(folder: Path) -> None:
    shutil.rmtree(write_digits(folder, train=2, val=1) / "images" / "val")


def _something_else(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("three years")


def _other_json(folder: Path) -> None:
    (folder / "annotations").mkdir(parents=True)
    (folder / "annotations" / "train.json").write_text("[1, 2]")


def _a_file(folder: Path) -> None:
    folder.write_text("no folder")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (_other_settings, "other settings.*'seed': 9"),
        (_missing_picture, "lacks some of its images"),
        (_missing_split, "something else"),
        (_something_else, "something else"),
        (_other_json, "something else"),
        (_a_file, "something else"),
    ],
)
def test_other_contents_are_refused_and_kept(tmp_path: Path, prepare: Any, message: str) -> None:
    folder = tmp_path / "digits"
    prepare(folder)
    before = files(tmp_path)
    with pytest.raises(UserError, match=f"(?s){folder}.*{message}.*delete it or choose another folder"):
        write_digits(folder, train=2, val=1)
    assert files(tmp_path) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    save, calls = Image.Image.save, []

    def failing(self: Image.Image, *args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == 5:
            raise error
        save(self, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "save", failing)
    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        write_digits(tmp_path / "digits", train=3, val=3)
    assert list(tmp_path.iterdir()) == []
    if isinstance(error, OSError):
        assert str(tmp_path / "digits") in str(caught.value) and "No space left" in str(caught.value)


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written.*write elsewhere"):
        write_digits(tmp_path / "file" / "digits", train=1, val=1)


def test_lost_race_takes_the_other_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, split = tmp_path / "digits", digits_module._write_split

    def slow(*args: Any) -> None:
        split(*args)
        if not folder.exists():
            with monkeypatch.context() as patch:
                patch.setattr(digits_module, "_write_split", split)
                write_digits(folder, train=2, val=1)

    monkeypatch.setattr(digits_module, "_write_split", slow)
    assert write_digits(folder, train=2, val=1) == folder
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert len(files(folder)) == 5


def test_without_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install 'fsaf\[quickstart\]'"):
        write_digits(tmp_path / "digits")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"train": 0}, {"val": 0}, {"seed": -1}])
def test_wrong_numbers(tmp_path: Path, wrong: dict[str, int]) -> None:
    key, value = next(iter(wrong.items()))
    with pytest.raises(UserError, match=f"{key} = {value}"):
        write_digits(tmp_path / "digits", **wrong)


def test_pictures_to_choose_by_share_nothing_with_the_validation_split(tmp_path: Path) -> None:
    usual = write_digits(tmp_path / "usual", train=40, val=20)
    inside = write_digits(tmp_path / "inside", train=40, val=20, within_train=True)
    used = {
        (name, split): {item["digit"] for item in coco(folder, split)["annotations"]}
        for name, folder in (("usual", usual), ("inside", inside))
        for split in ("train", "val")
    }
    assert not used["inside", "train"] & used["inside", "val"]
    source, within = (digits_module._load_source(0, each) for each in (False, True))
    both = np.concatenate([within.pools["train"], within.pools["val"]])
    assert sorted(both) == sorted(source.pools["train"])
    assert used["inside", "val"] <= set(within.pools["val"])
    for whole, left, right in zip(
        source.photos["train"], within.photos["train"], within.photos["val"], strict=True
    ):
        assert np.array_equal(np.hstack([left, right]), whole)
    with pytest.raises(UserError, match="other settings"):
        write_digits(tmp_path / "usual", train=40, val=20, within_train=True)
