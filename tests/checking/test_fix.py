"""``fsaf check --fix``: each image and box is written or listed as changed; boxes stay on their objects."""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from checking.folders import HEIGHT, WIDTH, WRITERS, Folder, Photo, config, write_coco, write_yolo
from fsaf.checking.fix import write_clean
from fsaf.checking.survey import survey
from fsaf.cli import main
from fsaf.config import DataConfig, SplitConfig
from fsaf.data.exif import turn
from fsaf.data.readers.splits import open_split


def account(out: Path, folder: Folder, read: Mapping[str, Any]) -> None:
    """Assert that each image and each box of the input is written, or listed as removed."""
    changes = json.loads((out / "changes.json").read_text())
    for split, photos in folder.splits.items():
        content = json.loads((out / "annotations" / f"instances_{split}.json").read_text())
        names = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
        ids = {image.id: image.path.stem for image in read[split].images}
        written = Counter(names[entry["image_id"]] for entry in content["annotations"])
        removed: Counter[str] = Counter()
        gone = set()
        for change in (each for each in changes if each["split"] == split):
            stem = Path(change["file"]).stem
            stem = ids.get(change["image_id"], stem) if stem == split else stem
            gone.add(stem)
            removed[stem] += change.get("boxes", 0) + len(change.get("items", []))
            removed[stem] += change["change"].startswith("removed") and change.get("item") is not None
        for photo in photos:
            stem = Path(photo.name).stem
            assert stem in names.values() or stem in gone, (split, photo)
            assert written[stem] + removed[stem] == len(photo.boxes), (split, photo, changes)


boxes = st.tuples(
    st.integers(-20, 70),
    st.integers(-20, 50),
    st.integers(-3, 60),
    st.integers(-3, 40),
    st.sampled_from([0, 0, 1, 1, 2]),
)
states = st.sampled_from(["good", "good", "good", "missing", "broken", "copy"])


@st.composite
def folders(draw: st.DrawFn) -> Folder:
    found = Folder()
    for split in ("train", "val"):
        photos = []
        for i in range(draw(st.integers(1, 5))):
            its = draw(st.lists(boxes, max_size=4))
            if its and draw(st.booleans()):
                its.append(its[0])  # the same box again
            photos.append(Photo(f"{split}{i}.png", its, draw(states)))
        found.splits[split] = photos
    return found


@pytest.mark.slow
@pytest.mark.parametrize("form", WRITERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(folder=folders())
def test_every_image_and_box_is_written_or_listed(tmp_path: Path, form: str, folder: Folder) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    for path in (root, out):
        shutil.rmtree(path, ignore_errors=True)
    WRITERS[form](root, folder)
    try:
        found = survey(config(root))
        write_clean(out, found)
    except ValueError as error:  # a split without any image, or without classes
        assert not out.exists() and ("can be used" in str(error) or "such image" in str(error))
        return
    account(out, folder, found.read)


def test_the_good_image_after_a_broken_one_stays(tmp_path: Path) -> None:
    for form, write in WRITERS.items():
        root, out = tmp_path / form, tmp_path / f"{form} out"
        photos = [Photo("a.png", [(5, 5, 20, 20, 0)], "broken")]
        photos += [Photo(f"{name}.png", [(5, 5, 20, 20, 1)]) for name in "bc"]
        write(root, Folder({"train": photos, "val": [Photo("v.png", [(5, 5, 20, 20, 0)])]}))
        assert main(["check", str(root), "--data.min_size=1", "--fix", str(out)]) == 2
        content = json.loads((out / "annotations" / "instances_train.json").read_text())
        assert [Path(image["file_name"]).name for image in content["images"]] == ["b.png", "c.png"]
        changes = json.loads((out / "changes.json").read_text())
        gone = {Path(each["file"]).stem for each in changes if each["change"].startswith("removed")}
        assert gone == {"a"}


@pytest.mark.parametrize("same", ["paths", "copies"])
def test_validation_on_the_training_images_is_a_note(
    tmp_path: Path, same: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Data sets for trying things out use one split twice; nothing is removed from them."""
    photos = [Photo(f"{name}.png", [(5, 5, 20, 20, 0)]) for name in "abc"]
    write_yolo(
        tmp_path / "data", Folder({"train": photos, "val": photos if same == "copies" else photos[:1]})
    )
    if same == "paths":
        text = (tmp_path / "data" / "data.yaml").read_text().replace("images/val", "images/train")
        (tmp_path / "data" / "data.yaml").write_text(text)
    assert main(["check", str(tmp_path / "data"), "--data.min_size=1", "--fix", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.count("val has the images of train (3 in both)") == 1 and "in-two-splits" not in out
    content = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    assert len(content["images"]) == 3


def test_a_fix_that_would_leave_a_split_empty_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [Photo("a.png", [(5, 5, 20, 20, 0)], "broken")]
    write_coco(tmp_path / "data", Folder({"train": photos, "val": [Photo("v.png", [(5, 5, 20, 20, 0)])]}))
    assert main(["check", str(tmp_path / "data"), "--fix", str(tmp_path / "out")]) == 2
    assert "no image of split train can be used, so nothing is written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Rotation tags and sizes: where the bright rectangle is, the box must be.


def rotated(root: Path, form: str, tag: int, labelled: str, scale: int = 1) -> None:
    """Write a data set of one photo whose boxes are of the rotated (``labelled``) or the stored picture.

    scale: the labelled picture is this many times as large as the stored one.
    """
    box = (5, 10, 30, 16, 0)
    picture = Image.new("RGB", (WIDTH, HEIGHT), (10, 10, 10))
    picture.paste((250, 250, 250), (5, 10, 35, 26))
    photos = [Photo("a.png", [box]), Photo("b.png", [box])]
    WRITERS[form](root, Folder({"train": photos}))
    stored = picture
    if labelled == "rotated":  # what a viewer turns into the picture
        back = next(
            t for t in range(1, 9) if np.array_equal(np.asarray(turn(turn(picture, t), tag)), picture)
        )
        stored = turn(picture, back)
    for number, photo in enumerate(photos):
        (path,) = root.rglob(photo.name)
        path.unlink()
        exif = Image.Exif()
        exif[0x0112] = tag
        small = stored.resize((stored.width // scale, stored.height // scale))
        small.putpixel((0, 0), (number, 0, 0))
        small.save(path, exif=exif)


def bright(path: Path) -> list[int]:
    """Return x, y, width and height of the bright rectangle in the stored picture."""
    with Image.open(path) as image:
        ys, xs = np.nonzero(np.asarray(image.convert("L")) > 128)
    return [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]


CASES = [
    ("coco", 6, "rotated"),
    ("coco", 8, "rotated"),
    ("coco", 5, "rotated"),
    ("coco", 7, "rotated"),
    ("coco", 6, "stored"),
    ("voc", 6, "rotated"),
    ("voc", 8, "stored"),
    *(("yolo", tag, "rotated") for tag in range(2, 9)),
]


@pytest.mark.parametrize(("form", "tag", "labelled"), CASES)
def test_boxes_stay_on_their_objects_whatever_the_rotation(
    tmp_path: Path, form: str, tag: int, labelled: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    rotated(root, form, tag, labelled)
    assert main(["check", str(root), "--data.min_size=1", "--fix", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"tag {tag}: " in shown and f"the {labelled} picture" in shown
    content = json.loads((out / "annotations" / "instances_train.json").read_text())
    folder = survey(config(root)).read["train"].folder
    for image, entry in zip(content["images"], content["annotations"], strict=True):
        np.testing.assert_allclose(entry["bbox"], bright(folder / image["file_name"]), atol=1e-3)
        with Image.open(folder / image["file_name"]) as file:
            assert (image["width"], image["height"]) == file.size
    # The clean copy is read like any other, and trains on the same pixels.
    data = DataConfig(short_side=40, long_side=64, min_size=1)
    data.train = SplitConfig(annotations=str(out / "annotations/instances_train.json"), images=str(folder))
    again = open_split(data, "train")
    assert not again.turned and len(again.images) == 2


def test_exif_rotation_overrides(tmp_path: Path) -> None:
    """Labels of a tool that showed the stored pictures."""
    rotated(tmp_path / "data", "yolo", 6, "stored")
    options = ["--data.min_size=1", "--data.exif_rotation=false", "--fix", str(tmp_path / "out")]
    assert main(["check", str(tmp_path / "data"), *options]) == 0
    content = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    for entry in content["annotations"]:
        assert entry["bbox"] == pytest.approx([5, 10, 30, 16])


def test_a_size_that_nothing_explains_is_refused_and_not_promised_to_be_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [Photo(f"{name}.png", [(5, 5, 20, 20, 0)]) for name in "ab"]
    write_coco(tmp_path / "data", Folder({"train": photos}))
    Image.new("RGB", (90, 40)).save(tmp_path / "data" / "images" / "train" / "a.png")
    options = ["check", str(tmp_path / "data"), "--data.min_size=1"]
    assert main(options) == 2
    assert "--fix OUT" not in capsys.readouterr().out
    assert main([*options, "--fix", str(tmp_path / "out")]) == 2
    assert "90 x 40 pixels, but 60 x 40" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["coco", "voc"])
@pytest.mark.parametrize(("tag", "labelled"), [(1, "stored"), (6, "rotated")])
def test_boxes_are_scaled_with_their_images(tmp_path: Path, form: str, tag: int, labelled: str) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    rotated(root, form, tag, labelled, scale=2)
    if form == "coco":
        path = root / "annotations" / "train.json"
        content = json.loads(path.read_text())
        for entry in content["annotations"]:
            entry |= {"segmentation": [[5, 10, 35, 10, 35, 26, 5, 26]], "area": 480}
        path.write_text(json.dumps(content))
    assert main(["check", str(root), "--data.min_size=1", "--fix", str(out)]) == 2
    content = json.loads((out / "annotations" / "instances_train.json").read_text())
    folder = survey(config(root)).read["train"].folder
    for image, entry in zip(content["images"], content["annotations"], strict=True):
        np.testing.assert_allclose(entry["bbox"], bright(folder / image["file_name"]), atol=1.01)
        assert entry["area"] == pytest.approx(120, abs=0.01)
        if form == "coco":
            x, y, w, h = entry["bbox"]
            points = np.array(entry["segmentation"][0]).reshape(-1, 2)
            assert [*points.min(0), *points.max(0)] == pytest.approx([x, y, x + w, y + h])
