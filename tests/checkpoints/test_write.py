"""Checkpoints from one format to another and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.checkpoints import refusal
from fsaf.checkpoints.any_format import read_checkpoint, write_checkpoint
from fsaf.checkpoints.coco_classes import COCO
from fsaf.checkpoints.format import Checkpoint, Training
from fsaf.cli import main
from fsaf.config import Config, ModelConfig
from fsaf.data.records import Classes
from fsaf.errors import UserError
from fsaf.model.detector import FSAF

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("steps", [["a.safetensors", "b.pth"], ["a.pt", "b.pth"], ["a.pth", "b.pt", "c.pth"]])
def test_mmdetection_to_ours_and_back_bit_by_bit(
    tmp_path: Path, r50: Path, shapes: dict[str, list[int]], steps: list[str]
) -> None:
    source = r50
    for step in steps:
        assert main(["convert", str(source), str(tmp_path / step)]) == 0
        source = tmp_path / step
    back = torch.load(source, weights_only=True)
    assert list(back["meta"]["CLASSES"]) == back["meta"]["dataset_meta"]["classes"] == list(COCO.names)
    assert {name: list(tensor.shape) for name, tensor in back["state_dict"].items()} == shapes
    for name, tensor in torch.load(r50, weights_only=True)["state_dict"].items():
        assert tensor.numpy().tobytes() == back["state_dict"][name].numpy().tobytes(), name
        assert tensor.dtype == back["state_dict"][name].dtype


@pytest.mark.parametrize("steps", [["a.pth", "b.pt"], ["a.safetensors", "b.pt"], ["a.pth", "b.safetensors"]])
@pytest.mark.parametrize("norm", ["none", "group"])
def test_ours_to_others_and_back_with_everything(tmp_path: Path, steps: list[str], norm: Any) -> None:
    config = Config(model=ModelConfig(weights="none", channels=64, convs=3, norm=norm, std=(1.0, 2.0, 3.0)))
    config.predict.nms_iou = 0.6
    classes = Classes(names=("zebra", "ant"), ids=(24, 7))
    state = FSAF(config.model, 2).state_dict()
    state["head.classes.bias"] = torch.tensor([1e-42, -0.0])
    ours = Checkpoint(weights=state, classes=classes, config=config)
    write_checkpoint(tmp_path / "ours.pt", ours)
    source = tmp_path / "ours.pt"
    for step in steps:
        write_checkpoint(tmp_path / step, read_checkpoint(source))
        source = tmp_path / step
    back = read_checkpoint(source)
    assert (back.config, back.classes, back.training) == (config, classes, None)
    assert set(back.weights) == set(state)
    for name, tensor in state.items():
        assert tensor.numpy().tobytes() == back.weights[name].numpy().tobytes(), name


def test_training_state_stays_behind(tmp_path: Path, tiny_model_config: ModelConfig) -> None:
    state = FSAF(tiny_model_config, 1).state_dict()
    ours = Checkpoint(
        weights=state,
        classes=Classes(names=("a",), ids=(1,)),
        config=Config(model=tiny_model_config),
        step=3,
        training=Training(best=0.5, best_epoch=1, optimizer={}, scaler={}, processes=[]),
    )
    write_checkpoint(tmp_path / "a.safetensors", ours)
    assert read_checkpoint(tmp_path / "a.safetensors").training is None
    with pytest.raises(UserError, match="has ResNet-50, ResNet-101 or ResNeXt-101-64x4d as its backbone"):
        write_checkpoint(tmp_path / "a.pth", ours)
    with pytest.raises(UserError, match="give a name that ends in"):
        write_checkpoint(tmp_path / "a.bin", ours)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    write_checkpoint(tmp_path / "a.bin", ours, "safetensors")
    assert set(read_checkpoint(tmp_path / "a.bin").weights) == set(state)


def test_damaged_and_foreign_safetensors(tmp_path: Path, tiny_model_config: ModelConfig) -> None:
    from safetensors.torch import save_file

    state = FSAF(tiny_model_config, 1).state_dict()
    path = tmp_path / "a.safetensors"
    write_checkpoint(
        path,
        Checkpoint(
            weights=state, classes=Classes(names=("a",), ids=(1,)), config=Config(model=tiny_model_config)
        ),
    )
    cut = tmp_path / "cut.safetensors"
    for size in (200, path.stat().st_size - 8):
        cut.write_bytes(path.read_bytes()[:size])
        assert "perhaps cut short" in refusal(cut)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    assert "without fsaf's header" in refusal(tmp_path / "foreign.safetensors")
    for about, told in (
        ({}, "damaged"),
        ({"version": "1"}, "damaged"),
        ({"version": 1, "config": {}}, "damaged"),
        ({"version": 1, "config": {}, "classes": {"names": ["a"], "ids": []}}, "damaged"),
        ({"version": 99}, "newer fsaf"),
    ):
        other = tmp_path / "other.safetensors"
        save_file({"a": torch.zeros(1)}, other, {"fsaf": json.dumps({"format": "fsaf"} | about)})
        assert told in refusal(other)


@pytest.mark.parametrize("name", ["file/a.pt", "file/a.pth", "file/a.safetensors", "folder.safetensors"])
def test_places_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.safetensors").mkdir()
    model = ModelConfig(weights="none", channels=4, convs=1)
    ours = Checkpoint(weights={}, classes=Classes(names=("a",), ids=(1,)), config=Config(model=model))
    with pytest.raises(UserError, match=f"{name}: cannot be written"):
        write_checkpoint(tmp_path / name, ours)
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"branches": ["anchor_free", "anchor_based"]}, "anchors"),
        ({"separable": True}, "model.separable = true"),
    ],
)
def test_what_has_no_place_in_mmdetection(tmp_path: Path, settings: dict[str, Any], named: str) -> None:
    model = ModelConfig(weights="none", channels=4, convs=1, **settings)
    ours = Checkpoint(weights={}, classes=Classes(names=("a",), ids=(1,)), config=Config(model=model))
    with pytest.raises(UserError, match=rf"a\.pth: .*{named}"):
        write_checkpoint(tmp_path / "a.pth", ours)
    assert not list(tmp_path.iterdir())
