"""Data sets of three formats are found by their folder and read into the same records."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fsaf.config import Config, DataConfig, SplitConfig, TrainConfig
from fsaf.data.faults import Faults
from fsaf.data.readers.coco import read_coco
from fsaf.data.readers.formats import choose_split, find_splits
from fsaf.data.readers.splits import open_split
from fsaf.data.records import Records, to_coco
from fsaf.errors import UserError
from fsaf.training.prepare import open_for_training
from other_formats import same_records, write_voc, write_yolo
from synthetic import Picture, eight_pictures, write_coco, write_eight

DATA = DataConfig()


def read(folder: Path) -> dict[str, Records]:
    return {name: split.read(None, Faults(), DATA) for name, split in find_splits(folder).items()}


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    folder = tmp_path / "coco"
    write_eight(folder)
    return folder


@pytest.fixture
def records(coco: Path) -> dict[str, Records]:
    return read(coco)


def test_real_data_is_the_same_in_three_formats(test_data: Path, tmp_path: Path) -> None:
    truth = read(test_data / "bccd")
    assert list(truth) == ["test", "train", "val"]
    assert sum(len(split.images) for split in truth.values()) == 364
    voc, yolo = read(write_voc(tmp_path / "voc", truth)), read(write_yolo(tmp_path / "yolo", truth))
    for name, expected in truth.items():
        same_records(expected, voc[name])
        same_records(expected, yolo[name], atol=1e-4)
        assert (voc[name].format, yolo[name].format) == ("voc", "yolo")
        assert voc[name].classes.names == ("Platelets", "RBC", "WBC")
        assert (yolo[name].classes.names, yolo[name].classes.ids) == (("RBC", "WBC", "Platelets"), (0, 1, 2))
        assert voc[name].faults.counts == yolo[name].faults.counts == expected.faults.counts


def test_real_coco_with_crowds_as_voc(test_data: Path, tmp_path: Path) -> None:
    truth = read(test_data / "minicoco")
    assert {name: len(split.images) for name, split in truth.items()} == {"train": 294, "val": 128}
    # Most VOC files hold whole pixels, but fractions are read too.
    voc = read(write_voc(tmp_path, truth))
    assert sum(int(image.crowd.sum()) for image in truth["val"].images) > 0
    for name, expected in truth.items():
        same_records(expected, voc[name], atol=1e-2)


def move(folder: Path, moves: dict[str, str]) -> None:
    for source, target in moves.items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / source, folder / target)


COCO_LAYOUTS: dict[str, dict[str, str]] = {
    "annotations and images": {},
    "COCO's own": {
        "annotations/train.json": "annotations/instances_train2017.json",
        "annotations/val.json": "annotations/instances_val2017.json",
        "images/train": "train2017",
        "images/val": "val2017",
    },
    "a folder a split": {
        "images/train": "train",
        "images/val": "valid",
        "annotations/train.json": "train/_annotations.coco.json",
        "annotations/val.json": "valid/_annotations.coco.json",
    },
    "JSON at the top": {"annotations/train.json": "train.json", "annotations/val.json": "val.json"},
}


@pytest.mark.parametrize("layout", COCO_LAYOUTS)
def test_coco_layouts(coco: Path, records: dict[str, Records], layout: str) -> None:
    move(coco, COCO_LAYOUTS[layout])
    shutil.rmtree(coco / "annotations") if not list((coco / "annotations").iterdir()) else None
    (coco / "annotations").mkdir(exist_ok=True)
    (coco / "annotations" / "README.txt").write_text("hello")
    opened(coco, records)


def opened(folder: Path, truth: dict[str, Records], atol: float = 0.0) -> None:
    """Assert that ``data.root`` alone trains on split train and evaluates on val."""
    config = Config(data=DataConfig(root=str(folder)))
    train, val, _ = open_for_training(config)
    same_records(truth["train"], train, atol)
    assert val is not None
    same_records(truth["val"], val, atol)
    assert all(image.path.is_file() for image in [*train.images, *val.images])
    assert val.classes == train.classes == open_split(config.data, "train").classes


VOC_LAYOUTS: dict[str, Callable[[Path], None]] = {
    "VOC's own": lambda folder: None,
    "image sets one folder up": lambda folder: (
        move(
            folder,
            {
                "ImageSets/Main/train.txt": "ImageSets/train.txt",
                "ImageSets/Main/val.txt": "ImageSets/val.txt",
            },
        )
        or (folder / "ImageSets" / "Main").rmdir()
    ),
    "a folder a split": lambda folder: flat_voc(folder, "{split}/{name}", "{split}/{name}"),
    "annotations by split": lambda folder: flat_voc(
        folder, "annotations/{split}/{name}", "images/{split}/{name}"
    ),
    "folders in a split": lambda folder: flat_voc(
        folder, "{split}/annotations/{name}", "{split}/images/{name}"
    ),
}


def flat_voc(folder: Path, xml: str, image: str) -> None:
    for split in ("train", "val"):
        for name in (folder / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
            move(folder, {f"Annotations/{name}.xml": xml.format(split=split, name=f"{name}.xml")})
            move(folder, {f"JPEGImages/{name}.png": image.format(split=split, name=f"{name}.png")})
    for rest in ("Annotations", "JPEGImages", "ImageSets"):
        shutil.rmtree(folder / rest)


@pytest.mark.parametrize("layout", VOC_LAYOUTS)
def test_voc_layouts(tmp_path: Path, records: dict[str, Records], layout: str) -> None:
    folder = write_voc(tmp_path / "voc", records)
    (folder / "ImageSets" / "Main" / "red_train.txt").write_text("0011 -1\n")  # images of one class
    (folder / "ImageSets" / "Main" / "trainval.txt").write_text("0011\n")
    if layout != "VOC's own":
        for name in ("red_train.txt", "trainval.txt"):
            (folder / "ImageSets" / "Main" / name).unlink()
    VOC_LAYOUTS[layout](folder)
    opened(folder, records)


def roboflow(folder: Path) -> None:
    """Arrange as Roboflow exports: train/images, valid/images, and paths that seem to leave the folder."""
    move(
        folder,
        {
            f"{kind}/{a}": f"{b}/{kind}"
            for kind in ("images", "labels")
            for a, b in (("train", "train"), ("val", "valid"))
        },
    )
    (folder / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: \nnc: 3\nnames: [green, red, blue]\n"
    )


def lists(folder: Path) -> None:
    for split in ("train", "val"):
        names = sorted(path.name for path in (folder / "images" / split).iterdir())
        (folder / f"{split}.txt").write_text("".join(f"./images/{split}/{name}\n" for name in names))
    (folder / "data.yaml").write_text(
        "path: .\ntrain: train.txt\nval: [val.txt]\nnames: [green, red, blue]\n"
    )


def no_yaml(folder: Path) -> None:
    (folder / "data.yaml").unlink()
    (folder / "classes.txt").write_text("green\nred\nblue\n")


def beside(folder: Path) -> None:
    """Move the labels to the folder of the images."""
    for label in (folder / "labels").rglob("*.txt"):
        label.rename(folder / "images" / label.parent.name / label.name)
    shutil.rmtree(folder / "labels")


def absolute(folder: Path) -> None:
    (folder / "data.yaml").write_text(
        f"train: {folder}/images/train\nval: {folder}/images/val\nnames: [green, red, blue]\n"
    )


YOLO_LAYOUTS = [lambda folder: None, roboflow, lists, no_yaml, beside, absolute]


@pytest.mark.parametrize("change", YOLO_LAYOUTS)
def test_yolo_layouts(tmp_path: Path, records: dict[str, Records], change: Callable[[Path], None]) -> None:
    folder = write_yolo(tmp_path / "yolo", records)
    change(folder)
    opened(folder, records, atol=1e-4)


def test_annotations_that_a_config_names(tmp_path: Path, records: dict[str, Records]) -> None:
    voc, yolo = write_voc(tmp_path / "voc", records), write_yolo(tmp_path / "yolo", records)
    for annotations, images in (
        (voc / "ImageSets" / "Main" / "val.txt", None),
        (voc / "ImageSets" / "Main" / "val.txt", voc / "JPEGImages"),
        (yolo / "data.yaml", None),
        (yolo / "labels" / "val", None),
        (yolo / "labels" / "val", yolo / "images" / "val"),
    ):
        split = SplitConfig(annotations=str(annotations), images=str(images) if images else None)
        same_records(records["val"], open_split(DataConfig(val=split), "val"), atol=1e-4)
    every = open_split(DataConfig(train=SplitConfig(annotations=str(voc / "Annotations"))), "train")
    assert len(every.images) == 11


def test_a_folder_that_holds_two_formats_is_refused(coco: Path, records: dict[str, Records]) -> None:
    write_yolo(coco / "deeper", records)
    shutil.move(coco / "deeper" / "data.yaml", coco / "data.yaml")
    (coco / "labels").mkdir()
    with pytest.raises(UserError, match="holds data of COCO and YOLO; give the one meant"):
        find_splits(coco)


def test_a_folder_of_nothing_says_what_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=r"no JSON file with images.*folder of XML files.*data\.yaml"):
        find_splits(tmp_path)


def test_which_split_is_meant(tmp_path: Path) -> None:
    def chosen(names: list[str], role: str) -> str | None:
        splits = {name: find_splits(write_coco(tmp_path, [], name))[name] for name in names}
        found = choose_split(splits, role, tmp_path)
        return found and found[0]

    assert chosen(["test", "train", "trainval", "val"], "train") == "train"
    assert chosen(["test", "train", "val"], "val") == "val"
    assert chosen(["test", "train", "valid"], "val") == "valid"
    assert chosen(["test2017", "train2017"], "val") == "test2017"
    assert chosen(["trainval", "test"], "train") == "trainval"
    assert chosen(["train"], "val") is None
    with pytest.raises(UserError, match=r"any of the splits val_a, val_b could be meant"):
        chosen(["val_a", "val_b"], "val")


def test_no_split_to_evaluate_on(tmp_path: Path) -> None:
    write_coco(tmp_path, eight_pictures())
    config = Config(data=DataConfig(root=str(tmp_path)))
    assert open_for_training(config)[1] is None
    with pytest.raises(UserError, match="has no split to evaluate on, only train"):
        open_split(config.data, "val")
    (tmp_path / "annotations" / "val.json").write_text("{")
    config = Config(data=config.data, train=TrainConfig(evaluate_every=0))
    assert open_for_training(config)[1] is None


def test_coco_images_are_found_in_any_folder(coco: Path) -> None:
    shutil.move(coco / "images", coco / "pictures")
    assert open_split(DataConfig(root=str(coco)), "train").folder == coco / "pictures" / "train"


def test_coco_images_that_are_nowhere_are_told(coco: Path) -> None:
    shutil.rmtree(coco / "images")
    with pytest.raises(UserError, match=r"train\.json: none of its first images \('0011\.png' \.\.\.\)"):
        open_split(DataConfig(root=str(coco)), "train")


def test_records_as_coco_json_are_the_same_records(records: dict[str, Records], tmp_path: Path) -> None:
    path = tmp_path / "again.json"
    path.write_text(json.dumps(to_coco(records["train"])))
    again = read_coco(path, records["train"].folder)
    same_records(records["train"], again)
    assert again.classes == records["train"].classes
    assert [image.id for image in again.images] == [image.id for image in records["train"].images]


def test_validation_of_classes_that_were_not_trained_is_left_out_and_told(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco", [Picture(height=64, width=96, objects=[(8, 8, 30, 30, 7)])])
    both = Picture(height=64, width=96, objects=[(8, 8, 30, 30, 7), (40, 8, 30, 30, 3)])
    write_coco(tmp_path / "coco", [both], "val", first_id=501)
    folder = write_voc(tmp_path / "voc", read(tmp_path / "coco"))
    train, val, notes = open_for_training(Config(data=DataConfig(root=str(folder))))
    assert train.classes.names == ("red",) and val is not None and val.classes == train.classes
    assert [image.labels.tolist() for image in val.images] == [[0]]
    assert any("boxes of classes that the detector does not have: 1 of 2 left out" in note for note in notes)
