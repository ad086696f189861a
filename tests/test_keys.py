"""The flat list of the keys of a recipe, against the schema."""

import pytest

from fsaf.config import Config, to_dict
from fsaf.keys import choices_of, nearest_key, recipe_keys, section_titles
from settings import flat


def test_every_key_with_its_default() -> None:
    found = {
        key.name: list(key.default) if isinstance(key.default, tuple) else key.default
        for key in recipe_keys()
    }
    assert found == flat(to_dict(Config()))


def test_every_key_and_section_has_a_text() -> None:
    for key in recipe_keys():
        assert key.text.endswith(".") and key.text.count("`") % 2 == 0, key.name
    assert list(section_titles()) == [
        name for name, value in to_dict(Config()).items() if isinstance(value, dict)
    ]
    assert all(title and not title.endswith(".") for title in section_titles().values())


def test_a_config_does_not_share_its_lists_with_others() -> None:
    Config().predict.scales.append(2.0)
    assert Config().predict.scales == [1.0]


def test_words_that_a_key_can_be() -> None:
    kinds = {key.name: key for key in recipe_keys()}
    assert kinds["train.precision"].choices == ("fp32", "bf16", "fp16", "auto")
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
    if name == "--images":  # two splits have this key: either is right
        assert text == "" or ".images" in text
    else:
        assert text == (f"; did you mean {near!r}?" if near else "")
