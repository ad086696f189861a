"""``fsaf predict``: inputs, outputs, one message for a mistake."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fsaf
from cli.commands import refused
from fsaf.cli import main
from fsaf.detection.detector import Detector
from fsaf.detection.draw import draw_result


def test_json_lines(checkpoint: Path, root: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root / "images" / "val"
    options = ["--format", "json", "--score-threshold", "0", "--max-detections", "7"]
    assert main(["predict", str(checkpoint), str(folder), *options]) == 0
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    detector = fsaf.load(checkpoint, "cpu")
    expected = detector.predict(sorted(folder.iterdir()), score_threshold=0.0, max_detections=7)
    assert lines == [result.to_dict() for result in expected]
    assert [len(line["detections"]) for line in lines] == [7, 7, 7] and err == ""
    assert list(here.iterdir()) == []


def test_files_folders_and_patterns_in_order(
    checkpoint: Path, root: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root / "images" / "val", here / "pictures")
    (here / "pictures" / "notes.txt").write_text("no picture")
    given = ["pictures/0503.png", "pictures", "pictures/*1.png", str(here / "pict*" / "0502.p?g")]
    options = ["--format", "json", "--batch-size", "4"]
    assert main(["predict", str(checkpoint), *given, *options]) == 0
    names = [Path(json.loads(line)["image"]).stem for line in capsys.readouterr().out.splitlines()]
    assert names == ["0503", "0501", "0502", "0503", "0501", "0502"]


def test_pictures_are_written_in_their_own_size(
    checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 200, 4), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    for name, mode in (
        ("grey", "L"),
        ("colour", "RGB"),
        ("palette", "P"),
        ("clear", "RGBA"),
        ("deep", "I;16"),
    ):
        image = (
            Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 200)
            if mode == "I;16"
            else picture.convert(mode)
        )
        image.save(here / f"{name}.png")
    options = ["--out", "drawn/here", "--score-threshold", "0", "--max-detections", "3"]
    assert main(["predict", str(checkpoint), ".", *options]) == 0
    out, _ = capsys.readouterr()
    for name in ("grey", "colour", "palette", "clear", "deep"):
        with Image.open(here / "drawn" / "here" / f"{name}.png") as image:
            assert image.size == (200, 120) and image.mode == "RGB"
        assert f"{name}.png -> drawn/here/{name}.png: " in out


def test_boxes_in_the_colours_of_their_levels(checkpoint: Path, root: Path, here: Path) -> None:
    picture = root / "images" / "val" / "0501.png"
    options = ["--score-threshold", "0", "--max-detections", "5", "--out"]
    assert main(["predict", str(checkpoint), str(picture), *options, "plain"]) == 0
    assert main(["predict", str(checkpoint), str(picture), "--show-levels", *options, "levels"]) == 0
    result = fsaf.load(checkpoint).predict(picture, score_threshold=0, max_detections=5)
    levels, names = result.by_level()
    assert names == [f"{name} P{level + 3}" for name, level in zip(result.names, result.levels, strict=True)]
    expected = draw_result(Image.open(picture), result.boxes, levels, result.scores, names)
    with Image.open(here / "levels" / "0501.png") as drawn, Image.open(here / "plain" / "0501.png") as plain:
        assert (np.asarray(drawn) == np.asarray(expected)).all()
        assert (np.asarray(drawn) != np.asarray(plain)).any()


def test_pictures_of_one_name_do_not_replace_each_other(
    checkpoint: Path, root: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("a", "b"):
        shutil.copytree(root / "images" / "val", here / folder)
    assert main(["predict", str(checkpoint), "a", "b/0501.png", "--out", "drawn"]) == 0
    assert len(list((here / "drawn").iterdir())) == 4
    assert len({line.split(" -> ")[1].split(":")[0] for line in capsys.readouterr().out.splitlines()}) == 4


def test_drawing_never_replaces_the_pictures_given(
    checkpoint: Path, root: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root / "images" / "val", here / "a")
    before = {path.name: path.read_bytes() for path in (here / "a").iterdir()}
    assert main(["predict", str(checkpoint), "a", "--out", "a"]) == 0
    after = {path.name: path.read_bytes() for path in (here / "a").iterdir()}
    assert len(after) == 6 and all(after[name] == data for name, data in before.items())


def test_drawing_follows_exif_rotation(
    checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (96, 64)).save(here / "a.jpg", exif=exif)
    for option, size in (("false", (96, 64)), ("true", (64, 96)), ("null", (64, 96))):
        options = ["--data.exif_rotation", option, "--out", option]
        assert main(["predict", str(checkpoint), "a.jpg", *options]) == 0
        with Image.open(here / option / "a.png") as image:
            assert image.size == size


def test_mistakes_in_prediction(
    checkpoint: Path, root: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").write_text("mine")
    (here / "bad.png").write_text("no image")
    (here / "empty").mkdir()
    before = sorted(here.iterdir())
    ours, picture = str(checkpoint), str(root / "images" / "val" / "0501.png")
    for options, told in (
        (["none.pt", picture], ["none.pt: no such checkpoint"]),
        (["none.onnx", picture], ["none.onnx"]),
        (["file", picture], ["file: not a readable checkpoint"]),
        ([ours, "gone.png"], ["gone.png: no such image"]),
        ([ours, "*.tiff"], ["*.tiff"]),
        ([ours, "a**b"], ["a**b"]),
        ([ours, "empty"], ["empty: no such image, folder with images"]),
        ([ours, "bad.png"], ["bad.png: does not decode"]),
        ([ours, picture, "--out", "file"], ["file: is a file"]),
        ([ours, picture, "--out", "file/deeper"], ["file: is a file"]),
        ([ours, picture, "--device", "abacus"], ["'abacus'"]),
        ([ours, picture, "--score-threshold", "1.5"], ["score_threshold = 1.5"]),
        ([ours, picture, "--max-detections", "0"], ["max_detections = 0"]),
        ([ours, picture, "--batch-size", "0"], ["batch_size = 0"]),
        ([ours, picture, "--short-side", "5"], ["short_side = 5"]),
        ([ours, picture, "--colour", "red"], ["--colour"]),
        ([ours, picture, "--train.epochs", "1"], ["--train.epochs"]),
    ):
        refused(capsys, ["predict", *options], *told)
        assert sorted(here.iterdir()) == before


def test_a_fault_of_ours_is_not_hidden(checkpoint: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Detector, "_predict_chunk", broken)
    with pytest.raises(ZeroDivisionError):  # Python's exit status is then 1
        main(["predict", str(checkpoint), str(root / "images" / "val"), "--format", "json"])
