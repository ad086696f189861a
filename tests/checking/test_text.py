"""The output of ``fsaf check``, compared with the data set."""

import json
from pathlib import Path

import pytest

from fsaf.cli import main
from fsaf.config import DataConfig
from fsaf.data.readers.formats import find_splits
from fsaf.recipe import build_config
from synthetic import Picture, write_coco


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits: wide, tall and square images, boxes of known heights, one crowd, one box outside."""
    train = [
        Picture(height=480, width=640, objects=[(5, 5, 40, 7, 7), (50, 50, 30, 31, 3)]),
        Picture(height=640, width=480, objects=[(0, 0, 100, 600, 7)], crowds=[(10, 10, 50, 50, 90)]),
        Picture(height=500, width=500),
        Picture(height=480, width=640, objects=[(700, 5, 20, 20, 7)]),
    ]
    write_coco(tmp_path, train)
    write_coco(tmp_path, [Picture(height=480, width=640, objects=[(0, 0, 64, 64, 90)])], "val", first_id=90)
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> list[str]:
    assert main(["check", *argv]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def table(lines: list[str], title: str) -> dict[str, list[str]]:
    """Return the rows below the line that starts with ``title``, up to a blank line."""
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    rows = {}
    for line in lines[start + 1 :]:
        if not line:
            break
        label, *cells = (cell.strip() for cell in line.strip().split("  ") if cell.strip())
        rows[label] = cells
    return rows


def test_the_contents_of_a_data_set(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, str(folder), "--short-side", "240", "--long-side", "320", "--details")
    assert lines[0] == f"{folder}: coco, splits train, val" and lines[2].split() == ["train", "val"]
    assert table(lines, lines[2]) == {
        "images": ["4", "1"],
        "without boxes": ["2", "0"],
        "boxes": ["3", "1"],
        "crowd regions": ["1", "0"],
        "boxes left out": ["1", "0"],
    }
    assert table(lines, "class") == {"green": ["1", "0"], "red": ["2", "0"], "blue": ["0", "1"]}
    heights = table(lines, "box height, in the file")
    assert {label: cells for label, cells in heights.items() if cells != ["0", "0"]} == {
        "0 to 8": ["1", "0"],
        "16 to 32": ["1", "0"],
        "64 to 128": ["0", "1"],
        "512 or more": ["1", "0"],
    }
    halves = table(lines, "box height, resized")
    assert {label: cells for label, cells in halves.items() if cells != ["0", "0"]} == {
        "0 to 8": ["1", "0"],
        "8 to 16": ["1", "0"],
        "32 to 64": ["0", "1"],
        "256 to 512": ["1", "0"],
    }
    # Columns are aligned: every row ends below its title.
    assert len({len(line) for line in lines[2:8]}) == 1


def test_one_file_is_one_split(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, str(folder / "annotations" / "val.json"))
    assert lines[2].split() == ["val"] and lines[3].split() == ["images", "1"]
    assert lines[-1] == "evaluation would take this"


def test_shapes_can_be_pasted_into_a_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    lines = told(capsys, str(folder), "--shapes", "3", "--short-side", "96", "--long-side", "200")
    (line,) = (line for line in lines if line.lstrip().startswith("shapes:"))
    config = build_config({"data": {**yaml.safe_load(line), "short_side": 96, "long_side": 200}}, where="")
    assert isinstance(config.data, DataConfig)
    assert config.data.shapes == [(96, 96), (96, 128), (128, 96)]
    # 96 x 128 holds two wide images of train and the image of val.
    assert table(lines, "shape (") == {"96 x 96": ["1"], "96 x 128": ["3"], "128 x 96": ["1"]}
    wastes = table(lines, "padding")
    assert wastes["3 shapes"] == ["0.0%"]
    assert wastes["2 shapes"] == [f"{100 * (5 * 96 * 128 / (4 * 96 * 128 + 96 * 96) - 1):.1f}%"]
    square = f"{100 * (5 * 224 * 224 / (4 * 96 * 128 + 96 * 96) - 1):.1f}%"
    assert wastes["every image to one square of the long side"] == [square]
    more = told(capsys, str(folder), "--shapes", "7", "--short-side", "96", "--long-side", "200")
    assert line in more and "Of 7 shapes asked for, 3 help." in more


def test_of_cocos_archives_the_instances_are_read(folder: Path) -> None:
    annotations = folder / "annotations"
    for name in ("train", "val"):
        (annotations / f"{name}.json").rename(annotations / f"instances_{name}2017.json")
    (annotations / "captions_train2017.json").write_text(json.dumps({"images": []}))
    assert list(find_splits(folder)) == ["train2017", "val2017"]


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["."], "no JSON file with images, annotations and categories"),
        (["FOLDER", "--shapes", "0"], "--shapes 0: must be at least 1"),
        (
            ["FOLDER", "--shapes", "2", "--short-side", "16"],
            "data.short_side = 16: must be between 32 and 32768 pixels",
        ),
        (["FOLDER", "--short-side", "2000"], "data.short_side = 2000: must be at most data.long_side"),
        (["FOLDER", "--data.flip", "0"], "unrecognized option --data.flip"),
        (["FOLDER", "--recipe", "lite9"], "lite9: no such recipe file; did you mean 'lite0'?"),
        (["FOLDER/annotations/damaged.json"], "damaged.json: not readable as JSON"),
    ],
)
def test_mistakes(
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    (folder / "annotations" / "damaged.json").write_text("{")
    assert main(["check", *(arg.replace("FOLDER", str(folder)) for arg in argv)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and part in err


def test_no_images_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_coco(tmp_path, [])
    assert main(["check", str(file), "--shapes", "2"]) == 2
    assert "no images" in capsys.readouterr().err
    # Training would refuse it: status 2, but the tables are printed.
    assert main(["check", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[3].split() == ["images", "0"] and "lists no images" in out and err == ""
