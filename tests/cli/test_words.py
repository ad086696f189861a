"""Short and foreign ways to type a command."""

from pathlib import Path

import pytest

from fsaf.cli import main
from fsaf.cli.words import translate
from fsaf.errors import UserError


def test_fsaf_alone_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 0 and "usage: fsaf VERB" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["val", "test"])
def test_val_and_test_are_evaluate(verb: str) -> None:
    assert translate([verb, "best.pt"]) == ["evaluate", "best.pt"]


def test_data_is_the_data_root() -> None:
    assert translate(["train", "lite0", "--data", "D"]) == ["train", "lite0", "--data.root", "D"]
    assert translate(["val", "best.pt", "--data=D"]) == ["evaluate", "best.pt", "--data.root=D"]


def test_train_takes_a_folder(here: Path) -> None:
    (here / "photos").mkdir()
    given = ["train", "photos", "--train.epochs", "2"]
    folder = ["--data.root", "photos", "--out", "runs/photos"]
    assert translate(given) == ["train", "lite0", *folder, "--train.epochs", "2"]
    assert translate(["train", "photos", "--out", "x"])[-4:] == ["--data.root", "photos", "--out", "x"]


def test_a_recipe_goes_before_a_folder_of_the_same_name(here: Path) -> None:
    (here / "lite0").mkdir()
    assert translate(["train", "lite0"]) == ["train", "lite0"]


def test_yolos_words_get_the_line_to_type() -> None:
    with pytest.raises(UserError) as error:
        translate(["train", "data=my data", "model=yolo11n.pt", "epochs=30", "imgsz=640", "plots=True"])
    assert str(error.value).endswith(
        "fsaf train lite0 --data.root 'my data' --train.epochs 30 --data.short_side 640"
    )
    with pytest.raises(UserError, match=r"fsaf predict best.pt photos --predict.score_threshold 0.4"):
        translate(["predict", "model=best.pt", "source=photos", "conf=0.4"])
    with pytest.raises(UserError, match=r"fsaf predict best.pt photos$"):
        translate(["predict", "data=photos", "model=best.pt"])


def test_a_file_name_with_an_equals_sign_is_a_file(here: Path) -> None:
    Path("a=b.jpg").touch()
    assert translate(["predict", "best.pt", "a=b.jpg"]) == ["predict", "best.pt", "a=b.jpg"]
