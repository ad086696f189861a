"""``fsaf check`` finds every fault put into a data set, with file and id, and ``--fix`` removes it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsaf.checking.annotations import read_splits
from fsaf.checking.fix import CHANGES
from fsaf.cli import main
from fsaf.config import Config, DataConfig
from fsaf.data.faults import BOXES_DROPPED, FAULT_KINDS
from fsaf.data.readers.formats import find_splits
from fsaf.data.readers.splits import open_split
from fsaf.errors import UserError
from fsaf.training.prepare import open_for_training
from other_formats import same_records, write_voc, write_yolo
from synthetic import write_eight

OPTIONS = ["--short-side", "64", "--long-side", "96", "--data.keep_empty", "false"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_eight(tmp_path / "coco")
    return tmp_path / "coco"


def edit(folder: Path, change: Callable[[dict[str, Any]], Any], split: str = "train") -> None:
    path = folder / "annotations" / f"{split}.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def found(folder: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = main(["check", str(folder), *OPTIONS, "--json", *options])
    out, _ = capsys.readouterr()
    return status, json.loads(out)


def first(data: dict[str, Any], **values: Any) -> None:
    data["annotations"][0].update(values)


def picture(name: str) -> Callable[[Path], Path]:
    return lambda folder: folder / "images" / name


BOMB = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (200_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"


def bomb(path: Path) -> None:
    import zlib

    crc = zlib.crc32(BOMB[12:]).to_bytes(4, "big")
    path.write_bytes(BOMB + crc + path.read_bytes()[33:])


FAULTS: dict[str, tuple[str, Callable[[Path], Any], int | None, int | None]] = {
    # For each damage: the kind of fault, the image id and the annotation id.
    "no image_id": ("entry", lambda f: edit(f, lambda d: d["annotations"][0].pop("image_id")), None, None),
    "no width": ("size-missing", lambda f: edit(f, lambda d: d["images"][0].pop("width")), 11, None),
    "area is text": ("entry", lambda f: edit(f, lambda d: first(d, area="big")), 11, 1),
    "NaN": ("box-not-a-number", lambda f: edit(f, lambda d: first(d, bbox=[1, float("nan"), 3, 4])), 11, 1),
    "three numbers": ("box-not-a-number", lambda f: edit(f, lambda d: first(d, bbox=[1, 3, 4])), 11, 1),
    "unknown category": ("unknown-category", lambda f: edit(f, lambda d: first(d, category_id=5)), 11, 1),
    "unknown image": ("unknown-image", lambda f: edit(f, lambda d: first(d, image_id=5)), 5, 1),
    "image id twice": (
        "image-id-twice",
        lambda f: edit(f, lambda d: d["images"].append(d["images"][2])),
        13,
        None,
    ),
    "path leaves": (
        "path-leaves",
        lambda f: edit(f, lambda d: d["images"][1].update(file_name="../val/0501.png")),
        12,
        None,
    ),
    "missing": ("image-missing", lambda f: (f / "images/train/0013.png").unlink(), 13, None),
    "a folder": (
        "image-missing",
        lambda f: ((f / "images/train/0013.png").unlink(), (f / "images/train/0013.png").mkdir()),
        13,
        None,
    ),
    "truncated": ("image-unreadable", lambda f: cut(f / "images/train/0014.png"), 14, None),
    "no image": ("image-unreadable", lambda f: (f / "images/val/0502.png").write_text("x"), 502, None),
    "a bomb by the annotations": (
        "image-too-large",
        lambda f: edit(f, lambda d: d["images"][2].update(width=100_000, height=100_000)),
        13,
        None,
    ),
    "a bomb": ("image-too-large", lambda f: bomb(f / "images/train/0015.png"), 15, None),
    "shrunk": ("size-differs", lambda f: resave(f / "images/train/0016.png", (60, 40)), 16, None),
    "other size in val": (
        "size-differs-unused",
        lambda f: resave(f / "images/val/0502.png", (192, 128)),
        502,
        None,
    ),
    "inverted": ("box-inverted", lambda f: edit(f, lambda d: first(d, bbox=[9, 9, -5, 5])), 11, 1),
    "empty": ("box-empty", lambda f: edit(f, lambda d: first(d, bbox=[9, 9, 0, 5])), 11, 1),
    "outside": ("box-outside", lambda f: edit(f, lambda d: first(d, bbox=[99, 9, 5, 5])), 11, 1),
    "ignored": ("box-ignored", lambda f: edit(f, lambda d: first(d, ignore=1)), 11, 1),
    "over the edge": ("box-clipped", lambda f: edit(f, lambda d: first(d, bbox=[80, 9, 30, 20])), 11, 1),
    "between locations": ("box-no-location", lambda f: edit(f, lambda d: first(d, bbox=[9, 9, 4, 4])), 11, 1),
    "annotation id twice": ("annotation-id", lambda f: edit(f, lambda d: first(d, id=2)), None, 2),
    "no annotation id": ("annotation-id", lambda f: edit(f, lambda d: d["annotations"][0].pop("id")), 11, -1),
    "no boxes in an image": (
        "image-without-boxes",
        lambda f: (
            edit(f, lambda d: d["images"].append({**d["images"][0], "id": 99, "file_name": "z.png"}))
            or resave(f / "images/train/z.png", (96, 64))
        ),
        99,
        None,
    ),
    "a small image": (
        "image-small",
        lambda f: (
            edit(f, lambda d: d["images"][0].update(width=96, height=20))
            or resave(f / "images/train/0011.png", (96, 20))
        ),
        11,
        None,
    ),
    "no box of a class": (
        "class-without-boxes",
        lambda f: (
            edit(f, lambda d: d["categories"].append({"id": 200, "name": "grey"}))
            or edit(f, lambda d: d["categories"].append({"id": 200, "name": "grey"}), "val")
        ),
        None,
        None,
    ),
    "in two splits": (
        "in-two-splits",
        lambda f: shutil.copy(f / "images/val/0503.png", f / "images/train/0017.png"),
        17,
        None,
    ),
    "twice": (
        "image-twice",
        lambda f: shutil.copy(f / "images/train/0012.png", f / "images/train/0018.png"),
        18,
        None,
    ),
    "other classes in val": (
        "classes-differ",
        lambda f: edit(f, lambda d: d["categories"][0].update(name="pink"), "val"),
        None,
        None,
    ),
    "no images": (
        "no-images",
        lambda f: edit(f, lambda d: d.update(images=[], annotations=[]), "val"),
        None,
        None,
    ),
    "no boxes": ("no-boxes", lambda f: edit(f, lambda d: d.update(annotations=[])), None, None),
}


ONLY_CHECK = {"in-two-splits", "class-without-boxes", "size-differs-unused"}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def resave(path: Path, size: tuple[int, int]) -> None:
    Image.fromarray(
        np.random.default_rng(len(path.name)).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    ).save(path)


def test_a_clean_data_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = found(folder, capsys)
    assert status == 0 and [split["counts"] for split in told.values()] == [{}, {}]
    assert (told["train"]["images"], told["train"]["format"]) == (8, "coco")
    assert main(["check", str(folder), *OPTIONS]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "No faults found." in out and out[-1].startswith("training would take this: fsaf train lite0 ")


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_refused_by_its_rule_and_fixed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    kind, damage, image, item = FAULTS[name]
    damage(folder)
    status, told = found(folder, capsys, "--report", str(tmp_path / "report.json"))
    assert json.loads((tmp_path / "report.json").read_text()) == told
    faults = [fault for split in told.values() for fault in split["faults"] if fault["kind"] == kind]
    assert faults and all(fault["rule"] == FAULT_KINDS[kind].rule for fault in faults)
    assert Path(faults[0]["file"]).is_relative_to(folder) and faults[0]["text"].isprintable()
    if image is not None:
        assert faults[0]["image_id"] == image
    if item is not None:
        assert faults[0]["item"] == item
    kinds = {kind for split in told.values() for kind in split["counts"]}
    refused = any(FAULT_KINDS[kind].rule == "refused" for kind in kinds)
    assert status == (2 if refused else 0) and (FAULT_KINDS[kind].rule == "refused") <= refused
    # The tables.
    assert main(["check", str(folder), *OPTIONS]) == status
    out, _ = capsys.readouterr()
    assert f"\n{kind}: {FAULT_KINDS[kind].title}\n" in out
    # Training does the cheap part of the check, by the same rules.
    needs_images = {"size-differs"} | ({"image-too-large"} if name == "a bomb" else set())
    settings = Config(data=DataConfig(root=str(folder), short_side=64, long_side=96))
    if FAULT_KINDS[kind].rule == "refused" and kind not in needs_images:
        with pytest.raises(UserError):
            open_for_training(settings)
        status_unopened = 0 if kind == "image-unreadable" else 2
        assert main(["check", str(folder), *OPTIONS, "--no-images"]) == status_unopened
    else:
        _, _, notes = open_for_training(settings)
        told_first = FAULT_KINDS[kind].title.split(" (")[0] in " ".join(notes) or kind.startswith("image-")
        assert told_first or kind in BOXES_DROPPED or kind in needs_images | ONLY_CHECK
    # The clean copy.
    if kind not in CHANGES:
        return
    assert main(["check", str(folder), *OPTIONS, "--fix", str(tmp_path / "fixed")]) == status
    changes = json.loads((tmp_path / "fixed" / "changes.json").read_text())
    assert kind in {change["kind"] for change in changes}
    for split in ("train", "val"):
        (folder / "annotations" / f"{split}.json").unlink()
        shutil.copy(tmp_path / "fixed" / "annotations" / f"instances_{split}.json", folder / "annotations")
    status, told = found(folder, capsys)
    left = {kind for split in told.values() for kind in split["counts"]}
    assert status == 0 and not left & set(CHANGES), told
    train, val, _ = open_for_training(Config(data=DataConfig(root=str(folder), short_side=64, long_side=96)))
    assert val is not None and 6 <= len(train.images) <= 8


def test_one_cause_is_one_fault(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The boxes of an image that cannot be used are not faults of their own."""

    def unsized(data: dict[str, Any]) -> None:
        for image in data["images"][:2]:
            boxes.append(sum(entry["image_id"] == image["id"] for entry in data["annotations"]))
        del data["images"][0]["width"]  # so that the file has to tell, which is not there
        data["images"][1]["file_name"] = "../val/0501.png"

    boxes: list[int] = []
    edit(folder, unsized)
    (folder / "images/train/0011.png").unlink()
    status, told = found(folder, capsys)
    assert status == 2 and told["train"]["counts"] == {"path-leaves": 1, "image-missing": 1}
    assert sorted(fault["boxes"] for fault in told["train"]["faults"]) == sorted(boxes)
    edit(folder, lambda data: data.update(annotations=[]), "train")
    status, told = found(folder, capsys)
    assert set(told["train"]["counts"]) == {"path-leaves", "image-missing", "no-boxes"}


def test_boxes_of_which_none_can_be_learned_are_refused_as_in_training(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shrink(data: dict[str, Any]) -> None:
        for entry in data["annotations"]:
            entry["bbox"] = [9, 9, 4, 4]

    edit(folder, shrink)
    status, told = found(folder, capsys)
    counts = told["train"]["counts"]
    assert status == 2 and counts["no-boxes"] == 1 and "box-no-location" not in counts
    with pytest.raises(UserError, match=r"none of its .* boxes can be learned"):
        open_for_training(Config(data=DataConfig(root=str(folder), short_side=64, long_side=96)))


def test_paths_are_those_below_the_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(folder / "images/train/0012.png", folder / "images/train/0018.png")
    assert main(["check", str(folder), *OPTIONS]) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if "the same bytes as" in line)
    assert line == "  train: images/train/0018.png: the same bytes as images/train/0012.png (id 12) of train"


def test_fixing_keeps_what_was_right(folder: Path, tmp_path: Path) -> None:
    def more(data: dict[str, Any]) -> None:
        data["info"] = {"year": 2024}
        for entry in data["annotations"]:
            entry |= {"segmentation": [[1.5, 2, 3, 4, 5, 6]], "area": 12.5, "note": "mine"}
        data["annotations"][1]["bbox"] = [80, 9, 300, 20]
        data["annotations"][2]["ignore"] = 1
        data["images"][3]["license"] = 4

    edit(folder, more)
    before = json.loads((folder / "annotations" / "train.json").read_text())
    assert main(["check", str(folder), *OPTIONS, "--fix", str(tmp_path / "fixed")]) == 0
    after = json.loads((tmp_path / "fixed" / "annotations" / "instances_train.json").read_text())
    before["annotations"][1] |= {"bbox": [80, 9, 16, 20]}
    by_id = {entry["id"]: entry for entry in after["annotations"]}
    assert by_id == {entry["id"]: entry for entry in before["annotations"]}
    assert after["images"] == before["images"] and after["info"] == before["info"]


def test_of_entries_with_one_id_the_one_that_was_read_is_kept(folder: Path, tmp_path: Path) -> None:
    edit(
        folder, lambda data: data["images"].insert(0, {"id": 12, "file": "0012.png", "width": 1, "height": 1})
    )
    before = json.loads((folder / "annotations" / "train.json").read_text())
    assert main(["check", str(folder), *OPTIONS, "--fix", str(tmp_path / "fixed")]) == 2
    after = json.loads((tmp_path / "fixed" / "annotations" / "instances_train.json").read_text())
    assert after["images"] == before["images"][1:] and after["annotations"] == before["annotations"]


def test_fix_overwrites_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["check", str(folder), *OPTIONS, "--fix"]
    assert main([*options, str(tmp_path / "fixed")]) == 0
    assert main([*options, str(tmp_path / "fixed")]) == 2
    assert "instances_train.json: already exists" in capsys.readouterr().err
    (tmp_path / "file").write_text("x")
    assert main([*options, str(tmp_path / "file")]) == 2
    assert main([*options, str(tmp_path / "new"), "--no-images"]) == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("write", [write_voc, write_yolo])
def test_other_formats_become_coco(folder: Path, tmp_path: Path, write: Any) -> None:
    truth = read_splits(find_splits(folder), DataConfig())
    other = write(tmp_path / "other", truth)
    wrong = next(path for path in (other / "JPEGImages", other / "images" / "train") if path.is_dir())
    (wrong / "0013.png").unlink()
    # YOLO lists no images: a deleted image leaves only its label file.
    status = 2 if write is write_voc else 0
    assert main(["check", str(other), *OPTIONS, "--fix", str(tmp_path / "fixed")]) == status
    file = tmp_path / "fixed" / "annotations" / "instances_train.json"
    data = DataConfig(root=str(tmp_path))
    data.train.annotations, data.train.images = str(file), str(other)
    images = {"voc": other / "JPEGImages", "yolo": other}[
        next(iter(read_splits(find_splits(other), data).values())).format
    ]
    data.train.images = str(images)
    again = open_split(data, "train")
    truth["train"].images = [image for image in truth["train"].images if image.id != 13]
    same_records(truth["train"], again, atol=1e-3)
    assert all(image.path.is_file() for image in again.images)


def test_a_size_that_nothing_explains_is_not_fixed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_voc(tmp_path / "voc", read_splits(find_splits(folder), DataConfig()))
    path = other / "Annotations" / "0011.xml"
    path.write_text(path.read_text().replace("<width>96</width>", "<width>30</width>"))
    assert main(["check", str(other), *OPTIONS, "--fix", str(tmp_path / "fixed")]) == 2
    assert "0011.png: 96 x 64 pixels, but 30 x 64 in" in capsys.readouterr().err
    assert not (tmp_path / "fixed").exists()


def test_only_the_first_of_many_are_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def all_outside(data: dict[str, Any]) -> None:
        for entry in data["annotations"][1:]:
            entry["bbox"] = [100, 100, 5, 5]

    edit(folder, all_outside)
    assert main(["check", str(folder), *OPTIONS, "--no-images"]) == 0
    out, _ = capsys.readouterr()
    section = out[out.index("\nbox-outside: ") :].split("\n\n")[0].splitlines()
    count = len(json.loads((folder / "annotations/train.json").read_text())["annotations"]) - 1
    assert len(section) == 6 and section[-1] == f"  ... and {count - 3} more"
    _, told = found(folder, capsys, "--no-images")
    assert len([f for f in told["train"]["faults"] if f["kind"] == "box-outside"]) == count


def test_hostile_names_do_not_reach_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2J[bold red]\x07\u202e\ud800evil"

    def change(data: dict[str, Any]) -> None:
        data["categories"][0]["name"] = evil
        data["images"][0]["file_name"] = f"{evil}.png"
        first(data, bbox=[99, 99, 1, 1])

    edit(folder, change)
    assert main(["check", str(folder), *OPTIONS]) == 2
    out, err = capsys.readouterr()
    for line in (out + err).splitlines():
        assert line.isprintable()
    assert "[bold red]" in out and "evil" in out  # printed literally, not as markup
    assert found(folder, capsys)[0] == 2


def test_symbolic_links_are_followed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(folder / "images", tmp_path / "elsewhere")
    (folder / "images").symlink_to(tmp_path / "elsewhere")
    target = tmp_path / "store.png"
    shutil.move(tmp_path / "elsewhere" / "train" / "0011.png", target)
    (tmp_path / "elsewhere" / "train" / "0011.png").symlink_to(target)
    assert found(folder, capsys)[0] == 0


def test_a_check_does_not_import_pytorch(folder: Path) -> None:
    """PyTorch takes a second to import; nothing here needs it."""
    code = "import sys; from fsaf.cli import main; sys.exit(main(sys.argv[1:]) or 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, "check", str(folder), *OPTIONS, "--details"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bccd", "raccoon", "minicoco"])
def test_real_data_sets_are_taken(test_data: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(test_data / name)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"training would take this: fsaf train lite0 --data.root {test_data / name}"
