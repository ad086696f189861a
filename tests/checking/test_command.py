"""The ``fsaf check`` command in training's note finds what the note counts."""

import shlex
from pathlib import Path

import pytest

from fsaf.checking.command import check_command
from fsaf.cli import main
from fsaf.config import Config, DataConfig, ObjectiveConfig
from fsaf.recipe import load_recipe
from fsaf.training.prepare import open_for_training
from synthetic import Picture, write_coco


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A large photograph with boxes that are too small for lite0's size only."""
    objects = [(100, 100, 20, 20, 7), (500, 300, 24, 24, 3), (900, 500, 400, 400, 7)]
    write_coco(tmp_path, [Picture(height=1000, width=1600, objects=objects)])
    return tmp_path


def test_the_command_of_trainings_note_finds_the_boxes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_recipe("lite0", [f"--data.root={folder}"])
    _, _, notes = open_for_training(config)
    (note,) = (note for note in notes if "no location" in note)
    count = note.split(" of 3")[0].rpartition(": ")[2]
    (command,) = (note.rpartition(": ")[2] for note in notes if ": fsaf check" in note)
    assert command == f"fsaf check {folder} --recipe lite0"
    assert main([*shlex.split(command)[1:], "--no-images"]) == 0
    out, _ = capsys.readouterr()
    assert out.count("pixels when resized") == int(count) == 2
    # At 800 x 1333 every box has a location.
    assert main(["check", str(folder), "--recipe", "fsaf_r50_fpn_1x_coco", "--no-images"]) == 2
    capsys.readouterr()
    assert main(["check", str(folder), "--short-side", "800", "--long-side", "1333", "--no-images"]) == 0
    assert "no location" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "command"),
    [
        (load_recipe("lite0", ["--data.root=a b"]), "fsaf check 'a b' --recipe lite0"),
        (load_recipe("bccd_lite0"), "fsaf check . --recipe bccd_lite0"),
        (
            load_recipe("lite0", ["--data.shapes=null", "--data.short_side=300"]),
            "fsaf check . --recipe lite0 --data.short_side 300 --data.shapes null",
        ),
    ],
)
def test_the_command_names_the_recipe_and_what_differs(config: Config, command: str) -> None:
    assert check_command(config) == command


def test_the_command_gives_the_config_back() -> None:
    config = Config(
        data=DataConfig(root="x", shapes=[(320, 640)], short_side=320, long_side=640, min_size=8),
        objective=ObjectiveConfig(pos_scale=0.1),
    )
    config.data.val.annotations = "v.json"
    words = shlex.split(check_command(config))
    again = load_recipe(words[4], [f"--data.root={words[2]}", *words[5:]])
    again.data.batch_size, again.data.workers, again.data.shuffle = 2, 2, True
    assert check_command(again) == check_command(config)
    assert again.objective.pos_scale == 0.1 and again.data.shapes == [(320, 640)]
