"""Test starting from a checkpoint of other classes, or of a similar network."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from fsaf.checkpoints.format import Checkpoint, load_checkpoint, save_checkpoint
from fsaf.config import Config, ModelConfig
from fsaf.data.records import Classes
from fsaf.errors import UserError
from fsaf.model.anchors import KINDS
from fsaf.model.detector import FSAF
from fsaf.recipe import build_config
from fsaf.training.trainer import train
from fsaf.training.transfer import plan_transfer
from synthetic import eight_pictures, recipe, write_coco

BOTH = ModelConfig(
    backbone="test_efficientnet",
    weights="none",
    channels=8,
    convs=1,
    frozen_stages=-1,
    branches=["anchor_free", "anchor_based"],
)
OLD, NEW = ("platelet", "red", "white"), ("white", "new", "platelet", "other")


def classes(names: tuple[str, ...]) -> Classes:
    return Classes(names=names, ids=tuple(range(1, len(names) + 1)))


def make(config: ModelConfig, names: tuple[str, ...]) -> tuple[FSAF, dict[str, Any]]:
    model = FSAF(config, len(names))
    return model, Checkpoint(weights=model.state_dict(), classes=classes(names), config=Config(model=config))


def start(
    config: ModelConfig, names: tuple[str, ...], checkpoint: dict[str, Any]
) -> tuple[FSAF, FSAF, list[str]]:
    """Return a new network, the same with the weights it takes, and the lines printed."""
    torch.manual_seed(1)
    before, after = FSAF(config, len(names)), FSAF(config, len(names))
    after.load_state_dict(before.state_dict())
    found = plan_transfer(after, classes(names), checkpoint, "a.pt")
    after.load_state_dict(found.state, strict=False)
    return before, after, found.lines("a.pt", len(after.state_dict()))


def test_classes_in_both_keep_their_rows_and_new_ones_start_anew() -> None:
    old, checkpoint = make(BOTH, OLD)
    before, after, said = start(BOTH, NEW, checkpoint)
    total = len(before.state_dict())
    assert said == [
        f"from a.pt: {total - 4} of {total} weights; class rows kept: white, platelet; new: new, other"
    ]
    for name, value in after.state_dict().items():
        if not name.startswith(("head.classes", "head.anchor_classes")):
            assert torch.equal(value, old.state_dict()[name])
    # Written out by class and anchor, in the order that the head's docstring states.
    for layer, kinds in (("classes", 1), ("anchor_classes", KINDS)):
        for part in ("weight", "bias"):
            mine, theirs, fresh = (getattr(getattr(m.head, layer), part) for m in (after, old, before))
            for kind in range(kinds):
                for i, name in enumerate(NEW):
                    row = mine[kind * len(NEW) + i]
                    if name in OLD:
                        assert torch.equal(row, theirs[kind * len(OLD) + OLD.index(name)])
                    else:
                        assert torch.equal(row, fresh[kind * len(NEW) + i])


def test_the_scores_of_a_kept_class_are_the_old_ones() -> None:
    old, checkpoint = make(BOTH, OLD)
    _, after, _ = start(BOTH, NEW, checkpoint)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        theirs, mine = old.eval()(images), after.eval()(images)
    for name in ("white", "platelet"):
        for level in range(5):
            a, b = theirs.free.logits[level][:, OLD.index(name)], mine.free.logits[level][:, NEW.index(name)]
            torch.testing.assert_close(a, b)
            a = theirs.anchors.logits[level].unflatten(1, (KINDS, -1))[:, :, OLD.index(name)]
            b = mine.anchors.logits[level].unflatten(1, (KINDS, -1))[:, :, NEW.index(name)]
            torch.testing.assert_close(a, b)


def test_the_same_classes_take_everything_in_whatever_order() -> None:
    old, checkpoint = make(BOTH, OLD)
    _, after, said = start(BOTH, OLD, checkpoint)
    total = len(old.state_dict())
    assert said == [f"from a.pt: {total} of {total} weights"]
    assert all(torch.equal(value, old.state_dict()[name]) for name, value in after.state_dict().items())
    _, turned, said = start(BOTH, OLD[::-1], checkpoint)
    assert said == [f"from a.pt: {total} of {total} weights"]
    assert turned.head.classes is not None and old.head.classes is not None
    assert torch.equal(turned.head.classes.weight, old.head.classes.weight.flip(0))


def test_no_class_in_common() -> None:
    _, checkpoint = make(BOTH, ("a", "b"))
    before, after, said = start(BOTH, ("c", "d"), checkpoint)
    assert "class rows kept: none; new: c, d" in said[0]
    assert before.head.classes is not None and after.head.classes is not None
    assert torch.equal(before.head.classes.weight, after.head.classes.weight)


def test_a_pyramid_of_other_channels_leaves_the_backbone() -> None:
    old, checkpoint = make(BOTH, OLD)
    before, after, said = start(replace(BOTH, channels=16), OLD, checkpoint)
    backbone = [name for name in old.state_dict() if name.startswith("backbone.")]
    assert said[0].startswith(
        f"from a.pt: {len(backbone)} of {len(before.state_dict())} weights; class rows kept: none"
    )
    assert len(said) == 2 and "initialised anew, other shape in the file: pyramid.lateral.0" in said[1]
    for name, value in after.state_dict().items():
        source = old if name in backbone else before
        assert torch.equal(value, source.state_dict()[name])


def test_a_branch_that_is_not_in_the_file_and_one_that_is_left_there() -> None:
    free = replace(BOTH, branches=["anchor_free"])
    _, checkpoint = make(free, OLD)
    _, _, said = start(BOTH, OLD, checkpoint)
    assert said[1:] == [
        "from a.pt: initialised anew, not in the file: head.anchor_classes, head.anchor_deltas"
    ]
    _, checkpoint = make(BOTH, OLD)
    _, _, said = start(free, OLD, checkpoint)
    assert said[1:] == ["from a.pt: not used: head.anchor_classes, head.anchor_deltas"]


def test_another_backbone_is_left_as_a_whole() -> None:
    old, checkpoint = make(BOTH, OLD)
    del checkpoint.weights[next(name for name in checkpoint.weights if name.startswith("backbone."))]
    before, after, said = start(BOTH, OLD, checkpoint)
    assert "its backbone differs and is not used; see model.weights" in said[1]
    for name, value in after.state_dict().items():
        source = before if name.startswith("backbone.") else old
        assert torch.equal(value, source.state_dict()[name])


def test_nothing_in_common_is_refused() -> None:
    config = replace(BOTH, channels=16, convs=0)
    _, checkpoint = make(config, OLD)
    checkpoint.weights = {k: v for k, v in checkpoint.weights.items() if not k.startswith("backbone.")}
    with pytest.raises(UserError, match=r"a\.pt: no layer fits this network .*test_efficientnet"):
        start(BOTH, NEW, checkpoint)


def test_a_file_with_fewer_rows_than_names_is_refused() -> None:
    _, checkpoint = make(BOTH, OLD)
    checkpoint.classes = classes((*OLD, "fourth"))
    with pytest.raises(UserError, match=r"a\.pt: head\.classes\.weight has 3 rows, but its classes need 4"):
        start(BOTH, NEW, checkpoint)


def test_training_says_what_it_took(tmp_path: Path) -> None:
    write_coco(tmp_path, eight_pictures())
    names = ("blue", "violet")
    values = recipe(tmp_path, tmp_path / "out", model__backbone="test_efficientnet", train__evaluate_every=0)
    values |= {"init": str(tmp_path / "old.pt")}
    values["train"]["max_steps"] = 1
    values["optim"]["lr"] = 1e-12
    config = build_config(values, where="")
    old, checkpoint = make(config.model, names)
    save_checkpoint(tmp_path / "old.pt", checkpoint)
    text = io.StringIO()
    train(config, Console(file=text, width=400))
    assert "old.pt: " in text.getvalue() and "class rows kept: blue; new: green, red" in text.getvalue()
    trained = load_checkpoint(tmp_path / "out" / "checkpoints" / "last.pt")
    assert trained.classes.names == ("green", "red", "blue") and old.head.classes is not None
    weight = trained.weights["head.classes.weight"]
    torch.testing.assert_close(weight[2], old.head.classes.weight[0], rtol=0, atol=1e-9)
    assert not torch.allclose(weight[0], old.head.classes.weight[0], atol=1e-4)
