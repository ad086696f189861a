"""The preview shows what training sees: pixels, boxes, padding; and it trains nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fsaf.cli import main
from fsaf.config import Config, DataConfig
from fsaf.data.readers.coco import read_coco
from fsaf.data.samples import Images
from fsaf.data.workers import make_loader
from fsaf.errors import DataError, UserError, WriteError
from fsaf.recipe import build_config
from fsaf.training.preview import LINE, STRIPES, draw_preview, first_rows, write_preview
from synthetic import COLORS, GROUND, Picture, recipe, write_coco, write_eight

DATA = DataConfig(batch_size=4, flip=0.0, short_side=128, long_side=192, shapes=[(160, 224)], keep_empty=True)
GAP = 8


def sheet(folder: Path, pictures: list[Picture], data: DataConfig = DATA, **layout: int) -> np.ndarray:
    records = read_coco(write_coco(folder, pictures), folder / "images" / "train")
    images = Images(records, data, augment=True)
    loader, sampler = make_loader(images, data.batch_size, workers=0, train=True)
    rows = first_rows(images, sampler, loader.collate_fn, layout.pop("count", 4))
    return np.asarray(draw_preview(records, rows, **{"columns": 2, "cell": 640, **layout}))


def test_an_image_with_its_box_padding_and_caption(tmp_path: Path) -> None:
    found = sheet(tmp_path, [Picture(height=128, width=192, objects=[(40, 30, 80, 70, 7)])])
    assert found.shape == (160 + LINE + 2 * GAP, 224 + 2 * GAP, 3)
    cell = found[GAP:-GAP, GAP:-GAP]
    assert (cell[120, 20] == GROUND).all() and (cell[65, 80] == COLORS[7]).all()
    for padding in (cell[128:160], cell[:160, 192:]):
        assert set(np.unique(padding)) == set(STRIPES)
    assert (cell[65, 39:44] != COLORS[7]).any()  # the line of the box, in the colour of its class
    caption = cell[160:]
    assert caption.min() < 60 and caption.max() == 255


def test_pixels_are_those_of_the_batch(tmp_path: Path) -> None:
    data = replace(DATA, augment="strong", shapes=[(128, 192)], batch_size=2)
    pictures = [Picture(height=128, width=192) for _ in range(6)]
    found = sheet(tmp_path, pictures, data, columns=3, count=3)
    records = read_coco(tmp_path / "annotations" / "train.json", tmp_path / "images" / "train")
    loader, _ = make_loader(Images(records, data, augment=True), 2, workers=0, train=True)
    seen = [image for batch in loader for image in batch.images][:3]
    assert found.shape[0] == 128 + LINE + 2 * GAP  # one row
    for column, image in enumerate(seen):
        left = GAP + column * (192 + GAP)
        np.testing.assert_array_equal(found[GAP : GAP + 128, left : left + 192], image.permute(1, 2, 0))


def test_large_images_are_shrunk_and_short_epochs_show_what_there_is(tmp_path: Path) -> None:
    found = sheet(tmp_path, [Picture(height=128, width=192)] * 3, cell=112)
    assert found.shape[:2] == (2 * (80 + LINE) + 3 * GAP, 2 * 112 + 3 * GAP)


def test_padding_without_fixed_shapes_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    pictures = [Picture(height=128, width=192), Picture(height=192, width=128)]
    found = sheet(tmp_path, pictures, replace(DATA, shapes=None, pad=32), columns=1, count=1)
    assert found.shape[:2] == (192 + LINE + 2 * GAP, 192 + 2 * GAP)


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eight")
    write_eight(folder)
    return folder


def config_of(root: Path, out: Path) -> Config:
    return build_config(recipe(root, out), where="test")


@pytest.mark.parametrize(("name", "kind"), [("seen.png", "PNG"), ("deeper/seen.JPG", "JPEG")])
def test_it_is_written_whole_and_nothing_else_is(eight: Path, tmp_path: Path, name: str, kind: str) -> None:
    state = torch.get_rng_state()
    write_preview(config_of(eight, tmp_path / "run"), tmp_path / name)
    with Image.open(tmp_path / name) as picture:
        assert picture.format == kind
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [Path(name).name]
    assert torch.equal(torch.get_rng_state(), state)


def test_mistakes_are_one_message_and_leave_nothing(eight: Path, tmp_path: Path) -> None:
    config = config_of(eight, tmp_path / "run")
    for name, message in (("seen.txt", r"seen\.txt: must end in \.png or"), ("seen", "must end in")):
        with pytest.raises(UserError, match=message):
            write_preview(config, tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        write_preview(config, tmp_path / "folder.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError):
        write_preview(config, tmp_path / "file" / "seen.png")
    config.data.root = str(tmp_path / "nowhere")
    with pytest.raises(DataError, match="nowhere"):
        write_preview(config, tmp_path / "seen.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_the_command_writes_the_file_and_trains_nothing(
    eight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "seen.png"
    words = [
        "train",
        "lite0",
        "--data.root",
        str(eight),
        "--out",
        str(tmp_path / "run"),
        "--preview",
        str(out),
    ]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{out}\n" and out.is_file() and not (tmp_path / "run").exists()
    assert main([*words, "--dry-run"]) == 2
    assert "either --preview or --dry-run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_keeps_a_preview_for_its_report(eight: Path, tmp_path: Path) -> None:
    from fsaf.reporting.report import write_report
    from fsaf.training.trainer import train

    values = recipe(eight, tmp_path / "run", train__epochs=1, train__evaluate_every=0)
    run = train(build_config(values, where="test"))
    with Image.open(run / "preview.jpg") as picture:
        assert picture.width == 2 * 96 + 3 * GAP
    assert "Training images" in write_report(run).read_text(encoding="utf-8")
    (run / "preview.jpg").unlink()
    assert "Training images" not in write_report(run).read_text(encoding="utf-8")
