"""YOLO: lines of shares become boxes, data.yaml names splits and classes, and mistakes are one message."""

import time
from pathlib import Path

import pytest
from PIL import Image

from fsaf.config import DataConfig
from fsaf.data.faults import Faults
from fsaf.data.readers.formats import find_splits
from fsaf.data.records import Classes, Records
from fsaf.errors import UserError

YAML = "train: images/train\nnames: [cat, dog]\n"


def make(folder: Path, labels: str | bytes | None, text: str = YAML) -> Path:
    for name in ("images/train", "labels/train"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (200, 100)).save(folder / "images/train/a.jpg")
    if labels is not None:
        content = labels.encode() if isinstance(labels, str) else labels
        (folder / "labels/train/a.txt").write_bytes(content)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return folder


def read(folder: Path, classes: Classes | None = None, faults: Faults | None = None) -> Records:
    split = find_splits(folder)["train"]
    return split.read(classes, faults or Faults(), DataConfig())


def test_lines_become_boxes(tmp_path: Path) -> None:
    lines = "1 0.5 0.5 0.5 0.5\n\n0 0.1 0.2 0.1 0.2\r\n0.0 0.25 0.5 0.5 1 \n1 0.1 0.1 0.4 0.2 0.3 0.6\n"
    records = read(make(tmp_path, lines))
    (image,) = records.images
    assert (image.id, image.width, image.height) == (1, 200, 100)
    assert records.classes == Classes(names=("cat", "dog"), ids=(0, 1))
    assert image.labels.tolist() == [1, 0, 0, 1] and image.items.tolist() == [1, 3, 4, 5]
    expected = [
        [50, 25, 150, 75],
        [10, 10, 30, 30],
        [0, 0, 100, 100],
        [20, 10, 80, 60],
    ]  # the last line is a polygon
    assert image.boxes.tolist() == [pytest.approx(box, abs=1e-4) for box in expected]


def test_an_image_without_a_label_file_holds_no_object(tmp_path: Path) -> None:
    records = read(make(tmp_path, None))
    assert len(records.images[0].boxes) == 0 and records.faults.counts == {"label-missing": 1}


def test_a_label_file_without_an_image_is_told(tmp_path: Path) -> None:
    folder = make(tmp_path, "")
    (folder / "labels/train/b.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "labels/train/classes.txt").write_text("cat\n")
    assert read(folder).faults.counts == {"label-without-image": 1}


def test_exif_rotation_turns_the_size_that_shares_are_of(tmp_path: Path) -> None:
    folder = make(tmp_path, "0 0.5 0.5 0.5 0.5\n")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100)).save(folder / "images/train/a.jpg", exif=exif)
    split = find_splits(folder)["train"]
    for turned, size in ((False, (200, 100)), (True, (100, 200))):
        (image,) = split.read(None, Faults(), DataConfig(exif_rotation=turned)).images
        assert (image.width, image.height) == size


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0 0.5 0.5 0.5", "must be a class and x, y, width, height"),
        ("0 0.5 0.5 0.5 0.5 0.9", "must be a class and x, y, width, height"),
        ("cat 0.5 0.5 0.5 0.5", "'cat 0.5 0.5 0.5 0.5' is not numbers alone"),
        ("0 0.5 nan 0.5 0.5", "is not finite"),
        ("0 0.5 0.5 1e999 0.5", "is not finite"),
        ("2 0.5 0.5 0.5 0.5", "class 2 is not among the 2 of"),
        ("-1 0.5 0.5 0.5 0.5", "class '-1' is no whole number"),
        ("0.5 0.5 0.5 0.5 0.5", "class '0.5' is no whole number"),
        ("0 100 50 100 50", "must be shares of the image's width and height, 0 to 1"),
    ],
)
def test_a_line_that_cannot_be_used_is_refused(tmp_path: Path, line: str, told: str) -> None:
    folder = make(tmp_path, f"0 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(UserError) as error:
        read(folder)
    assert str(error.value).startswith(f"{folder / 'labels/train/a.txt'}: line 2: ")
    assert told in str(error.value) and "\n" not in str(error.value)


def test_labels_that_are_not_text(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.txt: not readable as text"):
        read(make(tmp_path, b"\xff\xfe\x00\x81"))


def test_boxes_without_area_are_left_out_and_told(tmp_path: Path) -> None:
    lines = ("0 0.5 0.5 -0.1 0.1", "0 0.5 0.5 0.001 0.5", "0 1.5 0.5 0.2 0.2", "1 0.9 0.5 0.4 0.2")
    records = read(make(tmp_path, "\n".join(lines)))
    counts = {"box-inverted": 1, "box-empty": 1, "box-outside": 1, "box-clipped": 1}
    assert records.faults.counts == counts and len(records.images[0].boxes) == 1


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)

BROKEN = {
    "not YAML": ("{", "not readable as YAML"),
    "a list": ("- a\n", "not YOLO's data.yaml"),
    "no names": ("train: images/train\n", "needs 'names'"),
    "names empty": ("train: images/train\nnames: []\n", "needs 'names'"),
    "names of lists": ("train: images/train\nnames: [[cat]]\n", "a name for each number from 0"),
    "names by words": ("train: images/train\nnames: {cat: 0}\n", "a name for each number from 0"),
    "another count": ("train: images/train\nnc: 3\nnames: [cat, dog]\n", "nc is 3, but there are 2 names"),
    "train is a number": ("train: 3\nnames: [cat]\n", "train: must be a path"),
    "train is elsewhere": ("train: images/gone\nnames: [cat]\n", "'images/gone' is neither a folder nor"),
    "train leaves": ("train: /etc\nnames: [cat]\n", "train: '/etc' leaves"),
    "train leaves inside": ("train: images/../../x\nnames: [cat]\n", "'images/../../x' leaves"),
    "up and elsewhere": ("train: ../../etc\nnames: [cat]\n", "'../../etc' is neither a folder nor"),
    "a bomb of references": (BOMB + "train: images/train\nnames: *j\n", "a name for each number from 0"),
    "a bomb for a path": (BOMB + "train: *j\nnames: [cat]\n", "must be a path or a list of paths"),
    "a date that is none": ("train: 2020-13-45\nnames: [cat]\n", "not readable as YAML"),
    "nested deeply": ("[" * 5000, "not readable as YAML"),
    "an object": ("names: !!python/object/apply:os.system [ls]\n", "not readable as YAML"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_data_yaml_is_one_message(tmp_path: Path, name: str) -> None:
    text, told = BROKEN[name]
    folder = make(tmp_path, "0 0.5 0.5 0.5 0.5\n", text)
    start = time.process_time()
    with pytest.raises(UserError) as error:
        find_splits(folder / "data.yaml")["train"].read(None, Faults(), DataConfig())
    message = str(error.value)
    assert message.startswith(f"{folder / 'data.yaml'}: ") and told in message
    assert len(message) < 400 + len(str(folder)) and "\n" not in message
    assert time.process_time() - start < 5


def test_a_list_of_images_that_leaves_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path, "", "train: train.txt\nnames: [cat]\n")
    for text, told in (
        ("/etc/passwd\n", "'/etc/passwd' leaves"),
        ("./images/train/a.jpg\n../x.jpg\n", "line 2: '../x.jpg' leaves"),
        ("images/train/gone.jpg\n", "gone.jpg: no such image"),
        ("images/train/a.jpg\nimages/train/a.jpg\n", "appears twice"),
    ):
        (folder / "train.txt").write_text(text)
        with pytest.raises(UserError) as error:
            read(folder)
        assert told in str(error.value)


def test_classes_of_a_checkpoint_are_matched_by_name(tmp_path: Path) -> None:
    folder = make(tmp_path, "0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n")
    wanted = Classes(names=("dog",), ids=(18,))
    records = read(folder, wanted)
    assert records.classes is wanted and records.images[0].labels.tolist() == [0]
    assert records.faults.counts == {"box-other-class": 1}
    with pytest.raises(UserError, match=r"'cow' is not among the 2 here"):
        read(folder, Classes(names=("dog", "cow"), ids=(1, 2)))


def test_labels_without_names_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "deep" / "er", "0 0.5 0.5 0.5 0.5\n")
    (folder / "data.yaml").unlink()
    with pytest.raises(UserError, match="no class names"):
        find_splits(folder)
