"""Data sets without splits: what is held out, the lists of ``--split``, and training on them."""

import json
from pathlib import Path

import pytest

from checking.folders import WRITERS, Folder, Photo, config
from fsaf.cli import main
from fsaf.config import DataConfig, SplitConfig
from fsaf.data.readers.splits import open_split
from fsaf.errors import DataError
from fsaf.training.prepare import open_for_training


@pytest.fixture(params=WRITERS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Twenty photographs, half with cats and half with dogs, that are not split; in each format."""
    photos = [Photo(f"p{i:02}.png", [(5, 5, 20 + i, 20, i % 2)]) for i in range(20)]
    folder = tmp_path / "data"
    WRITERS[request.param](folder, Folder({"all": photos}))
    if request.param == "voc":
        (folder / "ImageSets" / "Main" / "all.txt").unlink()
    if request.param.startswith("coco"):
        (folder / "annotations" / "all.json").rename(folder / "result.json")
        (folder / "annotations").rmdir()
    if request.param == "yolo":
        (folder / "data.yaml").unlink()
        (folder / "classes.txt").write_text("cat\ndog\n")
        for kind in ("images", "labels"):
            for path in (folder / kind / "all").iterdir():
                path.rename(folder / kind / path.name)
            (folder / kind / "all").rmdir()
    return folder


def names(data: DataConfig, split: str) -> set[str]:
    return {image.path.name for image in open_split(data, split).images}


def test_a_fifth_is_held_out_the_same_in_every_run(root: Path) -> None:
    data = config(root).data
    train, val = names(data, "train"), names(data, "val")
    assert len(train) == 16 and len(val) == 4 and not train & val
    assert names(data, "val") == val
    parities = [int(name[1:3]) % 2 for name in val]
    assert parities.count(0) == parities.count(1) == 2  # as many cats as dogs
    assert names(config(root, val_seed=1).data, "val") != val
    assert len(names(config(root, val_share=0.5).data, "val")) == 10


def test_one_photograph_is_enough_to_train(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in root.rglob("p*.*"):
        if path.stem != "p00":
            path.unlink()
    for path in root.glob("*.json"):
        content = json.loads(path.read_text())
        content["images"], content["annotations"] = content["images"][:1], content["annotations"][:1]
        path.write_text(json.dumps(content))
    train, val, notes = open_for_training(config(root))
    assert len(train.images) == 1 and val is None
    assert sum("too few images to hold one out" in note for note in notes) == 1
    assert main(["check", str(root), "--data.min_size=1"]) == 0
    assert capsys.readouterr().out.count("too few images to hold one out") == 1


def test_a_share_of_nothing_trains_on_all(root: Path) -> None:
    train, val, notes = open_for_training(config(root, val_share=0))
    assert len(train.images) == 20 and val is None
    assert sum("no validation split" in note for note in notes) == 1


def test_one_note_says_so(root: Path) -> None:
    _, _, notes = open_for_training(config(root))
    assert sum("is not split: 4 of its 20 images are held out" in note for note in notes) == 1


def test_the_lists_are_what_training_uses(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lists"
    assert main(["check", str(root), "--data.min_size=1", "--split", str(out)]) == 0
    assert "--data.val.annotations" in capsys.readouterr().out
    data = config(root).data
    for split in ("train", "val"):
        listed = {Path(line).name for line in (out / f"{split}.txt").read_text().splitlines()}
        assert listed == names(data, split)


def test_edited_lists_are_followed(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    assert main(["check", str(root), "--data.min_size=1", "--split", str(out)]) == 0
    lines = (out / "train.txt").read_text().splitlines(keepends=True)
    (out / "train.txt").write_text("".join(lines[1:]))
    (out / "val.txt").write_text((out / "val.txt").read_text() + lines[0])
    data = config(root).data
    data.train = SplitConfig(annotations=str(out / "train.txt"))
    data.val = SplitConfig(annotations=str(out / "val.txt"))
    train, val = names(data, "train"), names(data, "val")
    assert len(train) == 15 and len(val) == 5 and Path(lines[0].strip()).name in val
    records = open_split(data, "train")
    assert all(len(image.boxes) == 1 for image in records.images) and records.classes.names == ("cat", "dog")


def test_mistakes_in_lists(root: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.txt"
    data = config(root).data
    data.train = SplitConfig(annotations=str(file))
    file.write_text("p99.png\n")
    with pytest.raises(DataError, match=r"train\.txt: line 1: 'p99\.png' is no image of"):
        open_split(data, "train")
    assert main(["check", str(root), "--data.min_size=1", "--split", str(tmp_path / "lists")]) == 0
    first = (tmp_path / "lists" / "train.txt").read_text().splitlines()[0]
    file.write_text(f"{first}\n{first}\n")
    with pytest.raises(DataError, match="appears twice"):
        open_split(data, "train")


def test_a_broken_image_that_is_not_listed_does_not_matter(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    assert main(["check", str(root), "--data.min_size=1", "--split", str(out)]) == 0
    lines = (out / "train.txt").read_text().splitlines(keepends=True)
    (path,) = root.rglob(Path(lines[0].strip()).name)
    path.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (out / "train.txt").write_text("".join(lines[1:]))
    for split, options in (("train.txt", 0), ("val.txt", 0)):
        files = [f"--data.train.annotations={out / 'train.txt'}", f"--data.val.annotations={out / split}"]
        assert main(["check", str(root), "--data.min_size=1", *files]) == options
    (out / "train.txt").write_text("".join(lines))
    assert main(["check", str(root), "--data.min_size=1", *files]) == 2


def test_lists_of_a_set_with_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = [Photo("a.png", [(5, 5, 20, 20, 0)])]
    WRITERS["yolo"](
        tmp_path / "data", Folder({"train": photos, "val": [Photo("b.png", [(5, 5, 20, 20, 0)])]})
    )
    assert main(["check", str(tmp_path / "data"), "--split", str(tmp_path / "out")]) == 2
    assert "has splits already: train, val" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
