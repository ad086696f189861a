"""Images that are there twice: equal bytes, and the same picture saved again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from checking.folders import Folder, Photo, config, write_yolo
from fsaf.checking.survey import survey
from fsaf.config import Config, DataConfig


def picture(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Return smooth colours, as a photograph has them."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


SAVED_AGAIN: dict[str, Callable[[Image.Image, Path], object]] = {
    "as another JPEG": lambda image, path: image.save(path, "JPEG", quality=60),
    "scaled": lambda image, path: image.resize((160, 120)).save(path, "JPEG", quality=90),
    "lossless": lambda image, path: image.save(path, "PNG"),
    "slightly blurred": lambda image, path: image.filter(ImageFilter.GaussianBlur(1)).save(path, "PNG"),
}
OTHER: dict[str, Callable[[Image.Image, Path], object]] = {
    "another picture": lambda image, path: picture(99).save(path, "PNG"),
    "mirrored": lambda image, path: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path, "PNG"),
    "another part": lambda image, path: image.crop((80, 60, 320, 240)).resize((320, 240)).save(path, "PNG"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    box = [(5, 5, 20, 20, 0)]
    train = [Photo(f"t{i}.png", box) for i in range(3)]
    write_yolo(tmp_path / "data", Folder({"train": train, "val": [Photo("v0.png", box)]}))
    for i in range(3):
        picture(i).save(tmp_path / "data" / "images" / "train" / f"t{i}.png")
    picture(7).save(tmp_path / "data" / "images" / "val" / "v0.png")
    return tmp_path / "data"


def counts(root: Path, split: str = "train") -> dict[str, int]:
    found = survey(config(root)).read[split].faults.counts
    return {
        kind: count
        for kind, count in found.items()
        if (count and "two-splits" in kind) or kind == "image-twice"
    }


@pytest.mark.parametrize("name", SAVED_AGAIN)
def test_the_same_picture_saved_again_is_found(root: Path, name: str) -> None:
    SAVED_AGAIN[name](picture(7), root / "images" / "train" / "t1.png")
    assert counts(root) == {"nearly-in-two-splits": 1} or counts(root) == {"in-two-splits": 1}
    (fault, *_) = [
        *survey(config(root)).read["train"].faults.kept.get("nearly-in-two-splits", []),
        *survey(config(root)).read["train"].faults.kept.get("in-two-splits", []),
    ]
    assert fault.file.name == "t1.png" and "v0.png" in fault.text
    assert counts(root, "val") == {}  # one cause is one fault


@pytest.mark.parametrize("name", OTHER)
def test_other_pictures_are_not_taken_for_it(root: Path, name: str) -> None:
    OTHER[name](picture(7), root / "images" / "train" / "t1.png")
    assert counts(root) == {}


def test_plain_pictures_are_not_compared(root: Path) -> None:
    for split, name, grey in (("train", "t1.png", 100), ("val", "v0.png", 101)):
        Image.new("RGB", (320, 240), (grey,) * 3).save(root / "images" / split / name)
    assert counts(root) == {}


# BCCD: BloodImage_00038 of train is BloodImage_00037 of val, focused anew.
@pytest.mark.slow
@pytest.mark.parametrize(("name", "known"), [("bccd", 1), ("raccoon", 0), ("minicoco", 0)])
def test_real_sets_have_no_false_alarms(test_data: Path, name: str, known: int) -> None:
    found = survey(Config(data=DataConfig(root=str(test_data / name))))
    train = found.read[found.roles.train or ""]
    assert train.faults.counts["nearly-in-two-splits"] == known
