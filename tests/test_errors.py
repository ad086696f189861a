"""Each cause of a user's mistake has its exception, and all are UserErrors."""

from collections.abc import Callable
from pathlib import Path

import pytest

import fsaf
from fsaf.files import write_text
from fsaf.recipe import load_recipe
from fsaf.scoring.metrics import coco_metrics


def wrong_data(folder: Path) -> None:
    (folder / "list.json").write_text("[1, 2]")
    coco_metrics(folder / "list.json", [])


def wrong_recipe(folder: Path) -> None:
    load_recipe("lite0", ["--train.epochs=0"])


def unknown_recipe(folder: Path) -> None:
    load_recipe("nothing")


def wrong_checkpoint(folder: Path) -> None:
    (folder / "best.pt").write_bytes(b"half a checkpoint")
    fsaf.load(folder / "best.pt")


def wrong_device(folder: Path) -> None:
    fsaf.train(load_recipe("lite0", ["--device=abacus", f"--data.root={folder}"]))


def wrong_place(folder: Path) -> None:
    write_text(folder, "text")


@pytest.mark.parametrize(
    ("mistake", "error"),
    [
        (wrong_data, fsaf.DataError),
        (wrong_recipe, fsaf.RecipeError),
        (unknown_recipe, fsaf.RecipeError),
        (wrong_checkpoint, fsaf.CheckpointError),
        (wrong_device, fsaf.DeviceError),
        (wrong_place, fsaf.WriteError),
    ],
)
def test_a_program_can_tell_causes_apart(
    tmp_path: Path, mistake: Callable[[Path], None], error: type[fsaf.UserError]
) -> None:
    with pytest.raises(fsaf.UserError) as caught:
        mistake(tmp_path)
    assert type(caught.value) is error
