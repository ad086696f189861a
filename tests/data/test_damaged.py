"""Files with bytes missing at their end: refused, skipped or accepted, by ``check`` and by training alike."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsaf.cli import main
from fsaf.config import Config, DataConfig
from fsaf.data.damaged import is_suspicious
from fsaf.data.readers.splits import check_images, open_split
from fsaf.data.samples import Images
from fsaf.data.workers import make_loader
from fsaf.errors import DataError, UserError
from fsaf.training.prepare import open_for_training
from synthetic import eight_pictures, write_coco

FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


def photo(path: Path, size: tuple[int, int] = (96, 64)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of eight training pictures, of which the third lacks its last bytes."""
    write_coco(tmp_path, eight_pictures())
    write_coco(tmp_path, eight_pictures(1)[:3], "val", first_id=501)
    path = tmp_path / "images" / "train" / "0013.png"
    with Image.open(path) as image:
        size = image.size
    photo(path, size)
    path.write_bytes(path.read_bytes()[:-600])
    return tmp_path


def config(root: Path, rule: str) -> Config:
    data = DataConfig(root=str(root), short_side=64, long_side=96, batch_size=2, workers=0, on_bad_image=rule)  # type: ignore[arg-type]
    return Config(data=data)


def check(root: Path, *options: str) -> int:
    return main(["check", str(root), "--short-side", "64", "--long-side", "96", *options])


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_without_its_end_is_suspicious(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"a.{FORMATS[name]}"
    content = photo(path)
    assert not is_suspicious(path)
    path.write_bytes(content[:-20])
    assert is_suspicious(path)
    path.write_text("not found")  # a page of a server instead of the picture
    assert is_suspicious(path)


def test_it_is_refused_before_training_with_the_remedies(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"0013\.png: does not decode .*data\.on_bad_image to skip or accept"):
        open_for_training(config(folder, "refuse"))
    assert check(folder) == 2
    assert "refused for 1 reason (image-unreadable)" in capsys.readouterr().out.splitlines()[-1]


def test_it_is_skipped_and_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, _, notes = open_for_training(config(folder, "skip"))
    assert [image.id for image in train.images] == [11, 12, 14, 15, 16, 17, 18]
    assert "images that do not decode (data.on_bad_image: skip): 1 of 8 left out" in notes
    loader, _ = make_loader(
        Images(train, config(folder, "skip").data, augment=True), 2, workers=0, train=True
    )
    assert sum(len(batch.ids) for batch in loader) == 7
    assert check(folder, "--data.on_bad_image", "skip", "--fix", str(tmp_path / "fixed")) == 0
    assert "0013.png" in (tmp_path / "fixed" / "changes.json").read_text()


def test_it_is_accepted_with_what_there_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, _, notes = open_for_training(config(folder, "accept"))
    assert len(train.images) == 8 and notes[0].startswith("images cut short, used as far as they go")
    loader, _ = make_loader(
        Images(train, config(folder, "accept").data, augment=True), 2, workers=0, train=True
    )
    assert sum(len(batch.ids) for batch in loader) == 8
    assert check(folder, "--data.on_bad_image", "accept") == 0
    assert "images cut short" in capsys.readouterr().out


@pytest.mark.parametrize("rule", ["refuse", "skip", "accept"])
def test_evaluation_follows_the_same_rule(folder: Path, rule: str) -> None:
    path = folder / "images" / "val" / "0501.png"
    path.write_bytes(path.read_bytes()[:-60])
    data = config(folder, rule).data
    if rule == "refuse":
        with pytest.raises(UserError, match="0501"):
            check_images(open_split(data, "val"), data)
    else:
        records = open_split(data, "val")
        check_images(records, data)
        assert len(records.images) == (2 if rule == "skip" else 3)


@pytest.mark.parametrize("rule", ["skip", "accept"])
def test_what_shows_nothing_is_not_accepted(folder: Path, rule: str) -> None:
    for path in (folder / "images" / "train").iterdir():
        path.write_text("not found")
    with pytest.raises(
        DataError, match="none of its images decodes" if rule == "skip" else "does not decode"
    ):
        open_for_training(config(folder, rule))
    assert check(folder, "--data.on_bad_image", rule) == 2
