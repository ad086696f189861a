"""The flat list of a recipe's keys, against the schema and against jsonargparse's reading of it."""

from pathlib import Path
from typing import Any

import pytest

from fsaf import keys
from fsaf.config import Config, to_dict
from fsaf.keys import choices_of, nearest_key, recipe_keys
from fsaf.recipe import config_parser


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def test_every_key_with_its_default() -> None:
    found = {
        key.name: list(key.default) if isinstance(key.default, tuple) else key.default
        for key in recipe_keys()
    }
    assert found == flat(to_dict(Config()))


def test_texts_are_those_that_jsonargparse_finds() -> None:
    theirs = {action.dest: action.help for action in config_parser()._actions}
    for key in recipe_keys():
        text = " ".join(theirs[key.name].replace("``", "").split())
        assert key.text == text and text


def test_without_the_source_there_are_keys_without_texts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(keys.config, "__file__", str(tmp_path / "gone.py"))
    assert [key.text for key in recipe_keys()] == [""] * len(recipe_keys())


def test_words_that_a_key_can_be() -> None:
    kinds = {key.name: key for key in recipe_keys()}
    assert kinds["train.precision"].choices == ("fp32", "bf16", "fp16")
    assert kinds["data.shuffle"].choices == ("true", "false")
    assert kinds["train.loss_scale"].choices == ("dynamic",)
    assert kinds["train.loss_scale"].metavar == "dynamic|N"
    assert kinds["train.max_steps"].metavar == "N" and kinds["data.root"].metavar == "TEXT"
    assert kinds["model.branches"].metavar == "LIST" and choices_of(list[int]) == ()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("--optim.lrr", "--optim.lr"),
        ("--lr", "--optim.lr"),
        ("--model.lr", "--optim.lr"),
        ("--data.batch-size", "--data.batch_size"),
        ("--images", "--data.train.images"),
        ("--xyzzy", None),
    ],
)
def test_the_nearest_key(name: str, near: str | None) -> None:
    known = [f"--{key.name}" for key in recipe_keys()]
    text = nearest_key(name, known)
    if name == "--images":  # of two splits: either will do, the last part alone does not tell
        assert text == "" or ".images" in text
    else:
        assert text == (f"; did you mean {near!r}?" if near else "")
