"""Folders as labelling tools and archives leave them: each is found, with the same images and boxes.

Every data set here has the photographs p0 to p3 with the same boxes. A case arranges their files anew.
"""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checking.folders import HEIGHT, NAMES, WIDTH, Box, Folder, Photo, config, paint, write_coco, write_voc
from fsaf.config import DataConfig
from fsaf.data.faults import Faults
from fsaf.data.readers.formats import find_splits
from fsaf.data.readers.splits import open_split, splits_of
from fsaf.errors import DataError
from fsaf.training.prepare import open_for_training

BOXES: dict[str, list[Box]] = {
    "p0": [(5, 5, 20, 20, 0)],
    "p1": [(10, 4, 30, 24, 1), (2, 2, 8, 30, 0)],
    "p2": [(6, 6, 18, 12, 1)],
    "p3": [(20, 10, 15, 15, 0)],
}
Case = Callable[[Path], Path | None]


def images(folder: Path, suffix: str = ".png") -> None:
    for i, (name, boxes) in enumerate(BOXES.items()):
        path = folder / f"{name}{suffix}"
        paint(path if suffix == ".png" else path.with_suffix(".png"), boxes, seed=i)
        if suffix != ".png":
            path.with_suffix(".png").rename(path)


def labels(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, boxes in BOXES.items():
        lines = [
            f"{label} {(x + w / 2) / WIDTH} {(y + h / 2) / HEIGHT} {w / WIDTH} {h / HEIGHT}\n"
            for x, y, w, h, label in boxes
        ]
        (folder / f"{name}.txt").write_text("".join(lines))


def coco(file: Path, prefix: str = "", **more: Any) -> dict[str, Any]:
    """Write a COCO file; return its content. more: keys of each image."""
    entries, annotations = [], []
    for i, (name, boxes) in enumerate(BOXES.items(), start=1):
        entries.append(
            {"id": i, "file_name": f"{prefix}{name}.png", "width": WIDTH, "height": HEIGHT, **more}
        )
        for *xywh, label in boxes:
            row = {"id": len(annotations) + 1, "image_id": i, "category_id": label, "bbox": xywh}
            annotations.append(row)
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES)]
    content = {"images": entries, "annotations": annotations, "categories": categories}
    write(file, json.dumps(content))
    return content


def xml(folder: Path, filename: str = "{}.png") -> None:
    write_voc(
        folder / "made", Folder({"train": [Photo(f"{name}.png", boxes) for name, boxes in BOXES.items()]})
    )
    for path in (folder / "made" / "Annotations").iterdir():
        text = path.read_text().replace(f"{path.stem}.png", filename.format(path.stem))
        write(folder / path.name, text)
    shutil.rmtree(folder / "made")


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def names_list(file: Path, prefix: str) -> None:
    write(file, "".join(f"{prefix}{name}.png\n" for name in BOXES))


def assert_whole(data: Path, root: Path | None = None, **settings: Any) -> None:
    """Assert that all four images are found once, with their boxes and classes."""
    settings = {"root": str(data), "val_share": 0, **settings}
    records = open_split(DataConfig(**settings), "train")
    assert [image.path.stem for image in records.images] == list(BOXES)
    for image in records.images:
        found = [
            (*map(round, (x1, y1, x2 - x1, y2 - y1)), NAMES.index(records.classes.names[label]))
            for (x1, y1, x2, y2), label in zip(image.boxes.tolist(), image.labels.tolist(), strict=True)
        ]
        assert sorted(found) == sorted(BOXES[image.path.stem])
        assert image.path.is_file()


# Found by content, whatever the folders are called.


def voc_in_any_folder(root: Path) -> None:
    images(root / "photos")
    xml(root / "my labels")


def voc_beside_images(root: Path) -> None:
    images(root)
    xml(root)


def voc_one_down(root: Path) -> None:
    images(root / "VOC2007" / "JPEGImages")
    xml(root / "VOC2007" / "Annotations")
    write(root / "VOC2007" / "ImageSets" / "Main" / "train.txt", "p0\np1\np2\np3\n")


def voc_two_down(root: Path) -> None:
    voc_one_down(root / "VOCdevkit")


def label_studio_coco(root: Path) -> None:
    images(root / "images")
    coco(root / "result.json", "images/")


def label_studio_windows(root: Path) -> None:
    images(root / "images")
    coco(root / "result.json", "images\\")


def label_studio_upload(root: Path) -> None:
    """The paths of Label Studio's server."""
    images(root / "images")
    coco(root / "result.json", "..\\..\\label-studio\\media\\upload\\4\\")


def local_files(root: Path) -> None:
    images(root / "pictures")
    coco(root / "result.json", "data/local-files/?d=pictures/")


def fiftyone(root: Path) -> None:
    images(root / "data")
    coco(root / "labels.json")


def cvat_coco(root: Path) -> None:
    images(root / "images")
    coco(root / "annotations" / "instances_default.json")


def roboflow_coco(root: Path) -> None:
    images(root / "train")
    coco(root / "train" / "_annotations.coco.json")


def json_in_any_folder(root: Path) -> None:
    images(root / "pictures")
    coco(root / "gt" / "export-3.json")
    write(root / "gt" / "settings.json", '{"theme": "dark"}')


def coco_in_an_archives_folder(root: Path) -> None:
    label_studio_coco(root / "project-1-at-2024")


def darknet(root: Path) -> None:
    """Darknet and CVAT's YOLO 1.1."""
    images(root / "obj_train_data")
    labels(root / "obj_train_data")
    names_list(root / "train.txt", "data/obj_train_data/")
    write(root / "obj.names", "cat\ndog\n")
    write(
        root / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    )


def yolo_mark(root: Path) -> None:
    images(root / "data" / "img")
    labels(root / "data" / "img")
    names_list(root / "data" / "train.txt", "data/img/")
    write(root / "data" / "obj.names", "cat\ndog\n")
    write(root / "data" / "obj.data", "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\n")


def label_studio_yolo(root: Path) -> None:
    images(root / "images")
    labels(root / "labels")
    write(root / "classes.txt", "cat\ndog\n")
    write(root / "notes.json", '{"categories": [], "info": {}}')


def label_img_yolo(root: Path) -> None:
    images(root)
    labels(root)
    write(root / "classes.txt", "cat\ndog\n")


def any_yaml(root: Path) -> None:
    images(root / "images")
    labels(root / "labels")
    write(root / "cells-v3.yaml", "train: images\nnames: [cat, dog]\n")
    write(root / "docker-compose.yml", "services: {web: {image: x}}\n")


def roboflow_yolo(root: Path) -> None:
    images(root / "train" / "images")
    labels(root / "train" / "labels")
    write(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [cat, dog]\n")


FOUND: list[Case] = [
    *(voc_in_any_folder, voc_beside_images, voc_one_down, voc_two_down),
    *(
        label_studio_upload,
        local_files,
        label_studio_coco,
        label_studio_windows,
        fiftyone,
        cvat_coco,
        roboflow_coco,
        json_in_any_folder,
    ),
    *(coco_in_an_archives_folder, darknet, yolo_mark, label_studio_yolo, label_img_yolo, any_yaml),
    roboflow_yolo,
]


@pytest.mark.parametrize("arrange", FOUND, ids=lambda case: case.__name__)
def test_the_data_are_found_by_content(tmp_path: Path, arrange: Case) -> None:
    root = tmp_path / "a set"
    arrange(root)
    assert_whole(root)


@pytest.mark.parametrize("arrange", FOUND, ids=lambda case: case.__name__)
def test_hidden_files_are_not_data(tmp_path: Path, arrange: Case) -> None:
    root = tmp_path / "a set"
    arrange(root)
    for path in list(root.rglob("*")):
        if path.is_file():
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7 metadata of another system")
    folders = {path.parent for path in root.rglob("*.png")} | {path.parent for path in root.rglob("*.xml")}
    for folder in folders:
        shutil.copytree(folder, root / ".ipynb_checkpoints" / folder.name, dirs_exist_ok=True)
    assert_whole(root)


def test_several_data_sets_are_named_and_one_is_to_be_chosen(tmp_path: Path) -> None:
    label_studio_coco(tmp_path / "one")
    label_studio_coco(tmp_path / "two")
    with pytest.raises(DataError, match=r"holds several data sets: .*one.*two.*; give the one meant"):
        find_splits(tmp_path)
    assert_whole(tmp_path / "two")
    assert_whole(tmp_path / "two" / "result.json")


@pytest.mark.parametrize("inside", [False, True])
def test_an_archive_is_to_be_unpacked(tmp_path: Path, inside: bool) -> None:
    root = tmp_path / "set"
    root.mkdir()
    with zipfile.ZipFile(root / "export.zip", "w") as archive:
        archive.writestr("data.yaml", "names: [cat]")
    with pytest.raises(DataError, match=r"unpack export\.zip" if inside else "is an archive; unpack it"):
        find_splits(root if inside else root / "export.zip")


# data.yaml


def yolo(root: Path, text: str, file: str = "data.yaml") -> None:
    images(root / "images" / "train")
    labels(root / "labels" / "train")
    write(root / file, f"{text}\nnames: [cat, dog]\n")


def an_absolute_path(root: Path) -> None:
    yolo(root, f"path: {root.absolute()}\ntrain: images/train")


def a_path_of_another_machine(root: Path) -> None:
    yolo(root, "path: /home/somebody/datasets/x\ntrain: images/train")


def a_path_from_the_folder_above(root: Path) -> None:
    yolo(root, f"path: {root.name}\ntrain: images/train")


def the_sets_own_name_first(root: Path) -> None:
    yolo(root, f"train: {root.name}/images/train")


def an_absolute_list(root: Path) -> None:
    yolo(root, "train: train.txt")
    names_list(root / "train.txt", f"{(root / 'images/train').absolute()}/")


def a_list_from_its_own_folder(root: Path) -> None:
    yolo(root, "train: train.txt")
    names_list(root / "train.txt", "./images/train/")


def an_absolute_folder(root: Path) -> None:
    yolo(root, f"train: {(root / 'images/train').absolute()}")


def a_list_of_folders(root: Path) -> None:
    yolo(root, "train: [images/train]")


YAML: list[Case] = [
    *(an_absolute_path, a_path_of_another_machine, a_path_from_the_folder_above, the_sets_own_name_first),
    *(an_absolute_list, a_list_from_its_own_folder, an_absolute_folder, a_list_of_folders),
]


@pytest.mark.parametrize("arrange", YAML, ids=lambda case: case.__name__)
def test_paths_of_data_yaml(tmp_path: Path, arrange: Case) -> None:
    arrange(tmp_path / "cells")
    assert_whole(tmp_path / "cells")


def test_a_yaml_beside_the_folder_that_it_names(tmp_path: Path) -> None:
    yolo(tmp_path / "cells", "path: ../cells\ntrain: images/train", file="../configs/cells.yaml")
    assert_whole(tmp_path / "configs" / "cells.yaml")


def test_a_path_that_leaves_the_root_is_refused(tmp_path: Path) -> None:
    yolo(tmp_path / "cells", "train: /etc")
    with pytest.raises(DataError, match=r"'/etc' leaves .*cells; write it relative to that folder"):
        find_splits(tmp_path / "cells")


def test_a_split_that_does_not_exist_is_a_note_unless_it_is_needed(tmp_path: Path) -> None:
    yolo(tmp_path / "cells", "train: images/train\nval: images/val\ntest: images/test")
    _, val, notes = open_for_training(config(tmp_path / "cells"))
    assert val is None and sum("val: 'images/val' is neither a folder nor" in note for note in notes) == 1
    with pytest.raises(DataError, match=r"val: 'images/val' is neither a folder nor a \.txt list in .*cells"):
        open_split(config(tmp_path / "cells").data, "val")


def test_absolute_file_names_inside_the_root(tmp_path: Path) -> None:
    root = tmp_path / "cells"
    images(root / "images")
    coco(root / "annotations.json", f"{(root / 'images').absolute()}/")
    assert_whole(root)


def test_the_folder_of_another_machine_is_left_in_voc(tmp_path: Path) -> None:
    images(tmp_path / "a")
    xml(tmp_path / "b", "C:\\Users\\me\\{}.png")
    assert_whole(tmp_path)


# Formats read loosely, each with one note.


def change(content: dict[str, Any], **keys: Callable[[Any], Any]) -> None:
    """Apply functions to the keys of all images and annotations."""
    for row in [*content["images"], *content["annotations"], *content["categories"]]:
        for key, function in keys.items():
            if key in row:
                row[key] = function(row[key])


def polygons(content: dict[str, Any]) -> None:
    for row in content["annotations"]:
        x, y, w, h = row.pop("bbox")
        row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]


LOOSE: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "whole-number floats": ("loose-number", lambda c: change(c, id=float, image_id=float, category_id=float)),
    "digit strings": ("loose-number", lambda c: change(c, id=str, image_id=str, category_id=str)),
    "sizes as floats": ("loose-number", lambda c: change(c, width=float, height=float)),
    "sizes as text": ("loose-number", lambda c: change(c, width=str, height=str)),
    "image ids that are text": (
        "image-id-text",
        lambda c: [
            row.update({key: f"img-{row[key]}"})
            for name, key in (("images", "id"), ("annotations", "image_id"))
            for row in c[name]
        ],
    ),
    "no sizes": ("size-missing", lambda c: [row.pop("width") for row in c["images"]]),
    "sizes of nothing": ("size-missing", lambda c: change(c, width=lambda _: 0, height=lambda _: 0)),
    "no bbox": ("box-from-polygon", polygons),
}


@pytest.mark.parametrize("name", LOOSE)
def test_numbers_of_other_tools_are_read_and_noted(tmp_path: Path, name: str) -> None:
    kind, damage = LOOSE[name]
    images(tmp_path / "images")
    content = coco(tmp_path / "train.json")
    damage(content)
    write(tmp_path / "train.json", json.dumps(content))
    assert_whole(tmp_path)
    records = open_split(DataConfig(root=str(tmp_path)), "train")
    assert records.faults.counts[kind] > 0
    assert {each for each, count in records.faults.counts.items() if count} == {kind}


@pytest.mark.parametrize(
    ("value", "crowd"), [("0", False), (0.0, False), ("1", True), (True, True), (None, False)]
)
def test_flags_written_as_text(tmp_path: Path, value: Any, crowd: bool) -> None:
    images(tmp_path / "images")
    content = coco(tmp_path / "train.json")
    for row in content["annotations"]:
        row["iscrowd"] = value
    write(tmp_path / "train.json", json.dumps(content))
    records = open_split(DataConfig(root=str(tmp_path)), "train")
    assert all((image.crowd == crowd).all() for image in records.images)


@pytest.mark.parametrize("word", ["Unspecified", "0", "false", ""])
def test_words_that_do_not_make_an_object_difficult(tmp_path: Path, word: str) -> None:
    images(tmp_path)
    xml(tmp_path)
    for path in tmp_path.glob("*.xml"):
        path.write_text(path.read_text().replace("</name>", f"</name><difficult>{word}</difficult>"))
    assert_whole(tmp_path)
    assert not any(image.crowd.any() for image in open_split(DataConfig(root=str(tmp_path)), "train").images)


def test_class_numbers_written_as_text(tmp_path: Path) -> None:
    yolo(tmp_path, "train: images/train")
    write(tmp_path / "data.yaml", "train: images/train\nnames: {'0': cat, '1': dog}\n")
    assert_whole(tmp_path)


def test_file_names_of_one_last_part_are_not_taken_for_one_image(tmp_path: Path) -> None:
    images(tmp_path / "images")
    content = coco(tmp_path / "train.json", "/upload/1/")
    content["images"][1]["file_name"] = "/upload/2/p0.png"
    write(tmp_path / "train.json", json.dumps(content))
    with pytest.raises(DataError, match=r"image 2: another file_name ends in 'p0\.png' too"):
        open_split(DataConfig(root=str(tmp_path)), "train")


def test_annotations_alone_are_enough_to_train(tmp_path: Path) -> None:
    write_coco(tmp_path, Folder({"train": [Photo(f"{n}.png", boxes) for n, boxes in BOXES.items()]}))
    settings = config(tmp_path)
    settings.data.train.annotations = "annotations/train.json"
    train, val, notes = open_for_training(settings)
    assert len(train.images) == 4 and val is None
    assert sum("nothing is evaluated" in note for note in notes) == 1


# Links, names of images, keypoints.


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    root, store = tmp_path / "cells", tmp_path / "store"
    images(store / "images")
    labels(store / "labels")
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
        (root / kind / "train").symlink_to(store / kind)
    (store / "images" / "again").symlink_to(store / "images")  # a circle
    write(root / "data.yaml", "train: images/train\nnames: [cat, dog]\n")
    assert_whole(root)


@pytest.mark.parametrize("suffix", ["", ".PNG", ".jfif", ".dat"])
def test_images_are_recognised_by_content(tmp_path: Path, suffix: str) -> None:
    images(tmp_path / "images" / "train", suffix)
    labels(tmp_path / "labels" / "train")
    write(tmp_path / "images" / "train" / "notes.dat", "no picture")
    write(tmp_path / "data.yaml", "train: images/train\nnames: [cat, dog]\n")
    assert_whole(tmp_path)


def test_the_box_of_keypoint_labels_is_read(tmp_path: Path) -> None:
    yolo(tmp_path, "train: images/train\nkpt_shape: [3, 2]")
    for path in (tmp_path / "labels" / "train").iterdir():
        lines = path.read_text().splitlines()
        path.write_text("".join(f"{line} 0.1 0.1 0.5 0.6 0.9 0.9\n" for line in lines))
    assert_whole(tmp_path)


def test_keypoints_that_do_not_fit_kpt_shape_are_refused(tmp_path: Path) -> None:
    yolo(tmp_path, "train: images/train\nkpt_shape: [3, 3]")
    path = tmp_path / "labels" / "train" / "p0.txt"
    path.write_text(f"{path.read_text().strip()} 0.1 0.1 0.5 0.6 0.9 0.9\n")
    with pytest.raises(DataError, match="9 numbers of keypoints"):
        open_split(DataConfig(root=str(tmp_path)), "train")


def test_a_data_set_of_another_format_is_evaluated_by_names(tmp_path: Path) -> None:
    """Trained on YOLO, whose ids start from 0; evaluated on COCO, with ids from 1 in another order."""
    yolo(tmp_path / "yolo", "train: images/train")
    trained = open_split(DataConfig(root=str(tmp_path / "yolo")), "train")
    images(tmp_path / "coco" / "images")
    content = coco(tmp_path / "coco" / "val.json")
    swap = {0: 7, 1: 3}
    change(content, category_id=swap.__getitem__)
    for row in content["categories"]:
        row["id"] = swap[row["id"]]
    write(tmp_path / "coco" / "val.json", json.dumps(content))
    (split,) = splits_of(DataConfig(root=str(tmp_path / "coco"))).values()
    records = split.read(trained.classes, Faults(), DataConfig())
    for image, other in zip(records.images, trained.images, strict=True):
        np.testing.assert_array_equal(np.sort(image.labels), np.sort(other.labels))
    assert any("names decide" in note for note in records.notes)
