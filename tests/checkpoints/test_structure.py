"""Files whose values have the wrong types: one message, by checking the structure where they are read."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoints.checkpoints import refusal, saved, thin_state
from checkpoints.test_format import TRAINING, checkpoint
from fsaf.checkpoints.format import to_content
from fsaf.checkpoints.hub import CONFIG
from fsaf.checkpoints.mmdetection import import_checkpoint
from fsaf.checkpoints.safetensors import KEY
from fsaf.checkpoints.structure import fits
from fsaf.errors import UserError


def test_types_of_values() -> None:
    assert fits({"a": [1, 2]}, dict[str, list[int]])
    for value in ([1], {1: [1]}, {"a": 1}, {"a": [1.5]}, {"a": [True]}, {"a": (1,)}):
        assert not fits(value, dict[str, list[int]])
    assert fits(1, float) and fits(None, int | None) and fits(b"", Any) and fits(True, bool)
    for value, kind in ((True, float), ("1", float), ("", int | None), (1, bool), (None, str)):
        assert not fits(value, kind)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


DEEP = "[" * 100_000 + "]" * 100_000
VALUES: list[Any] = [
    None, 7, -1, 1.5, float("nan"), 10**30, True, "x", b"x", [], [1], ["a", 1], {}, {1: 2}, {"a": {}}, (1, 2),
    torch.ones(2), torch.ones(()), [torch.ones(1)], torch.Size([1]), {1}, nested(90),
]  # fmt: skip
"""Values of every type that a file of ``torch.save`` can hold."""

PLACES = [
    "format", "version", "config", "classes", "classes.names", "classes.ids", "model", "model.weight",
    "training", "training.step", "training.seconds", "training.waited",
    "training.timed_out", "training.best", "training.best_epoch", "training.to_evaluate",
    "training.optimizer", "training.scaler", "training.processes", "training.model",
    "training.average_updates", "launch", "config.model", "config.model.backbone", "config.model.channels",
    "config.data.shapes", "config.data.scale", "config.train.epochs", "config.optim.lr", "config.model.mean",
    "config.predict.scales", "config.out",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_value_of_another_type_is_refused_in_one_message(tmp_path: Path, place: str) -> None:
    """``refusal`` fails for any other exception. Values that are right in their place are read as far as the
    weights, which are none of a network."""
    for value in VALUES:
        content = to_content(checkpoint(step=3, training=TRAINING))
        *path, last = place.split(".")
        at = content
        for key in path:
            at = at[key]
        at[last] = value
        refusal(saved(tmp_path / "a.pt", content))


@pytest.mark.slow
@pytest.mark.parametrize(
    "place", ["meta", "meta.CLASSES", "meta.dataset_meta", "meta.cfg", "meta.fsaf", "state_dict"]
)
def test_so_is_one_in_a_checkpoint_of_mmdetection(place: str) -> None:
    state = thin_state("resnet50", 3)
    state["neck.extra"] = torch.ones(1)  # so that a right value is refused as well
    for value in VALUES:
        content: dict[str, Any] = {"meta": {}, "state_dict": state}
        *path, last = place.split(".")
        (content["meta"] if path else content)[last] = value
        with pytest.raises(UserError, match=r"^a\.pth: "):
            import_checkpoint(content, "a.pth")


def test_numbers_that_are_none_in_the_config_of_mmdetection(tmp_path: Path, small: dict[str, Tensor]) -> None:
    small["neck.extra"] = torch.ones(1)
    content = {"meta": {"cfg": "mean=[1.2.3, 4, 5], std=[1, 2, 3]"}, "state_dict": small}
    assert "unknown: neck.extra" in refusal(saved(tmp_path / "a.pth", content))


def test_json_that_is_nested_too_deep(tmp_path: Path) -> None:
    header = json.dumps({"__metadata__": {KEY: DEEP}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert "nested too deep" in refusal(path)
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / CONFIG).write_text(DEEP)
    assert "nested too deep" in refusal(folder)
    (folder / CONFIG).write_text('{"fsaf": ' + DEEP + "}")
    assert "nested too deep" in refusal(folder)
    for text in ("[]", "7", '{"fsaf": []}', '{"fsaf": {"format": []}}', "1" * 5000, '{"a": 1'):
        (folder / CONFIG).write_text(text)
        refusal(folder)
