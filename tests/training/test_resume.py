"""Resume with other settings or other data: nothing is skipped or repeated, and every change is printed."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from fsaf.checkpoints.format import load_checkpoint, save_checkpoint
from fsaf.cli import main
from fsaf.recipe import build_config
from fsaf.training import precision, trainer
from synthetic import eight_pictures, recipe, write_coco, write_eight

pytestmark = pytest.mark.slow


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    write_eight(folder)
    return folder


def train(root: Path, out: Path, **overrides: Any) -> str:
    """Train; return the text on the console."""
    text = io.StringIO()
    settings = {"model__backbone": "test_efficientnet", "model__convs": 0, "train__evaluate_every": 0}
    settings |= {"data__batch_size": 2, "train__epochs": 4, "optim__schedule": "one_cycle"}
    config = build_config(recipe(root, out, **{**settings, **overrides}), where="the test's recipe")
    trainer.train(config, Console(file=text, width=400))
    return text.getvalue()


def steps(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [record for record in lines if "loss" in record]


@pytest.mark.parametrize(
    ("change", "said", "rest"),
    [
        ({}, None, [2] * 2 + [3] * 4 + [4] * 4),
        ({"data__batch_size": 4}, "changed: images a step 2 -> 4", [2, 3, 3, 4, 4]),
        ({"train__accumulate": 2}, "changed: images a step 2 -> 4", [2, 3, 3, 4, 4]),
        ({"data__batch_size": 1}, "changed: images a step 2 -> 1", [2] * 4 + [3] * 8 + [4] * 8),
    ],
)
def test_the_epoch_stays_when_a_step_has_more_or_fewer_images(
    root: Path, tmp_path: Path, change: dict[str, Any], said: str | None, rest: list[int]
) -> None:
    """Four epochs of four steps, stopped after six: in the middle of the second epoch."""
    out = tmp_path / "out"
    train(root, out, train__max_steps=6)
    text = train(root, out, **change, resume=True)
    assert [record["step"] for record in steps(out)] == list(range(1, 7 + len(rest)))
    assert [record["epoch"] for record in steps(out)][6:] == rest
    assert "resuming after step 6, in epoch 2 of 4" in text
    assert (said in text) if said else ("images a step" not in text)
    finished = train(root, out, **change, resume=True)
    assert f"finished: all 4 epochs are done, {6 + len(rest)} steps" in finished


def test_the_rate_does_not_fall_back_into_warm_up(root: Path, tmp_path: Path) -> None:
    """Warm-up of four steps is over after six, also when these count as three of the new batch size."""
    out = tmp_path / "out"
    settings = {"optim__warmup_steps": 4, "optim__schedule": "constant", "train__epochs": 6}
    train(root, out, **settings, train__max_steps=6)
    train(root, out, **settings, data__batch_size=4, resume=True)
    rates = [record["lr"] for record in steps(out)]
    assert rates[0] < rates[4] and rates[4:] == [0.001] * len(rates[4:])


def test_the_epoch_stays_when_there_are_other_images(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(root, out, train__max_steps=10)  # half of the third epoch
    write_coco(root, eight_pictures()[:4])
    text = train(root, out, resume=True)
    assert "changed: data.train 8 images, " in text and " -> 4 images, " in text
    assert [record["epoch"] for record in steps(out)][10:] == [3, 4, 4]


def test_a_moved_box_is_a_change_and_a_moved_folder_is_not(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(root, out, train__max_steps=1)
    moved = root.rename(tmp_path / "elsewhere")
    text = train(moved, out, train__max_steps=2, resume=True)
    assert "changed: data.train" not in text and "changed: data.root" in text
    pictures = eight_pictures()
    x, y, width, height, category = pictures[0].objects[0]
    pictures[0].objects[0] = (x, y, width - 2, height, category)
    write_coco(moved, pictures)
    text = train(moved, out, train__max_steps=3, resume=True)
    assert text.count("changed: data.train") == 1


def test_the_ap_on_other_images_does_not_count(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = {"train__evaluate_every": 1}
    train(root, out, **settings, train__max_steps=4)
    last = out / "checkpoints" / "last.pt"
    checkpoint = load_checkpoint(last)
    assert checkpoint.training is not None
    checkpoint.training.best = 0.9
    save_checkpoint(last, checkpoint)
    write_coco(root, eight_pictures(2)[:3], "val", first_id=501)
    text = train(root, out, **settings, train__max_steps=8, resume=True)
    assert "changed: data.val" in text and "AP 0.900 was measured on other images" in text
    resumed = load_checkpoint(last).training
    assert resumed is not None and resumed.best != 0.9


def test_every_changed_setting_is_printed(root: Path, tmp_path: Path) -> None:
    """Here an option that was forgotten, and one that was mistyped."""
    out = tmp_path / "out"
    train(root, out, data__flip=0.25, train__max_steps=1)
    text = train(root, out, optim__lr=0.5, train__max_steps=2, resume=True)
    changes = [line for line in text.splitlines() if line.startswith("changed: ")]
    assert changes == [
        "changed: data.flip 0.25 -> 0.5",
        "changed: optim.lr 0.001 -> 0.5",
        "changed: train.max_steps 1 -> 2",
    ]


def test_a_finished_run_says_so_and_stays_as_it_is(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    train(root, out, train__epochs=1, train__evaluate_every=1)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    text = train(root, out, train__epochs=1, train__evaluate_every=1, optim__lr=0.5, resume=True)
    assert "finished: all 1 epochs are done" not in text
    assert "finished: the epoch is done, 4 steps" in text and "--train.epochs" in text
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


# -- fsaf train --resume RUN ------------------------------------------------------------------------------


@pytest.fixture
def begun(root: Path, tmp_path: Path) -> Path:
    """A run of two epochs of two steps, stopped after the first step."""
    out = tmp_path / "runs" / "mine"
    train(root, out, data__batch_size=4, train__epochs=2, data__flip=0.25, train__max_steps=1)
    return out


def test_resume_takes_the_settings_of_the_run(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = begun.rename(begun.with_name("moved"))
    options = ["--optim.lr", "0.002", "--train.max_steps=3"]
    assert main(["train", "--resume", str(moved), *options]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "resuming after step 1, in epoch 1 of 2" in said
    assert "changed: optim.lr 0.001 -> 0.002" in said and "changed: train.max_steps 1 -> 3" in said
    assert said.count("changed: ") == 2 and not begun.exists()
    assert load_checkpoint(moved / "checkpoints" / "last.pt").config.data.flip == 0.25
    commands = (moved / "commands.jsonl").read_text().splitlines()
    assert f"fsaf train --resume {moved}" in json.loads(commands[-1])["command"]


def test_the_precision_that_was_chosen_stays_for_the_whole_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr(precision, "bf16_unit", lambda device: "avx512_bf16")
    assert "precision: bf16, because" in train(root, out, train__precision="auto", train__max_steps=1)
    assert yaml.safe_load((out / "config.yaml").read_text())["train"]["precision"] == "bf16"
    monkeypatch.setattr(precision, "bf16_unit", lambda device: None)
    said = train(root, out, train__precision="auto", train__max_steps=2, resume=True)
    assert "precision: bf16, because the run began with it" in said and "emulates it" in said
    assert "changed: train.precision" not in said
    assert load_checkpoint(out / "checkpoints" / "last.pt").config.train.precision == "bf16"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["lite0", "--resume", "RUN"], "give either a recipe or --resume RUN"),
        (["--resume", "RUN", "--out", "elsewhere"], "--out"),
        (["--resume", "nowhere"], "--resume nowhere: is not a run folder"),
        (["--resume", "true"], "--resume true"),
        ([], "give a recipe, or --resume RUN"),
    ],
)
def test_resume_refuses_what_is_not_a_run(
    begun: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    assert main(["train", *(str(begun) if word == "RUN" else word for word in arguments)]) == 2
    assert told in capsys.readouterr().err
    assert {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()} == before
