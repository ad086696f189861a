"""Weights from files: values, names, shapes and types that no trained network has are refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from checkpoints.checkpoints import refusal, saved
from checkpoints.test_format import TRAINING
from fsaf.checkpoints.any_format import read_checkpoint
from fsaf.checkpoints.format import Checkpoint, header, load_newest, save_checkpoint, to_content
from fsaf.checkpoints.hub import CONFIG, WEIGHTS
from fsaf.checkpoints.safetensors import KEY
from fsaf.checkpoints.weights import load_weights
from fsaf.config import Config, ModelConfig
from fsaf.data.records import Classes
from fsaf.errors import UserError
from fsaf.model.detector import FSAF

NAME = "pyramid.smooth.1.weight"
"""A tensor of the network, and the name that MMDetection has for it."""
THEIRS = "neck.fpn_convs.1.conv.weight"


def nan(state: dict[str, Tensor], name: str) -> None:
    state[name] = state[name].clone()
    state[name].view(-1)[3] = float("nan")


def infinite(state: dict[str, Tensor], name: str) -> None:
    state[name] = state[name].clone()
    state[name].view(-1)[3] = -float("inf")


def too_large(state: dict[str, Tensor], name: str) -> None:
    state[name] = torch.full(state[name].shape, 1e200, dtype=torch.float64)


def equal(state: dict[str, Tensor], name: str) -> None:
    part = name.split(".")[0]
    state |= {key: torch.full_like(value, 0.5) for key, value in state.items() if key.startswith(part)}


def int8(state: dict[str, Tensor], name: str) -> None:
    state[name] = (state[name] * 100).to(torch.int8)


def float8(state: dict[str, Tensor], name: str) -> None:
    state[name] = state[name].to(torch.float8_e4m3fn)


def complex_numbers(state: dict[str, Tensor], name: str) -> None:
    state[name] = state[name].to(torch.complex64)


FAULTS = [
    (nan, "NaN or infinite"),
    (infinite, "NaN or infinite"),
    (too_large, "NaN or infinite"),
    (equal, "are equal; this is not a trained network"),
    (int8, "is int8 instead of float32"),
    (float8, "is float8_e4m3fn"),
    (complex_numbers, "is complex64"),
]
CLASSES = Classes(names=("car", "cat"), ids=(3, 90))


@pytest.fixture
def network(tiny_model_config: ModelConfig) -> Checkpoint:
    """An untrained detector, as random as a trained one."""
    weights = FSAF(tiny_model_config, 2).state_dict()
    return Checkpoint(config=Config(model=tiny_model_config), classes=CLASSES, weights=weights)


def write_ours(folder: Path, checkpoint: Checkpoint) -> Path:
    return saved(folder / "a.pt", to_content(checkpoint))


def write_safetensors(folder: Path, checkpoint: Checkpoint) -> Path:
    about = json.dumps(header(checkpoint.config, checkpoint.classes))
    save_file(checkpoint.weights, folder / "a.safetensors", metadata={KEY: about})
    return folder / "a.safetensors"


def write_hub_folder(folder: Path, checkpoint: Checkpoint) -> Path:
    about = {"fsaf": header(checkpoint.config, checkpoint.classes)}
    (folder / CONFIG).write_text(json.dumps(about))
    save_file(checkpoint.weights, folder / WEIGHTS)
    return folder


@pytest.mark.parametrize(("damage", "message"), FAULTS)
@pytest.mark.parametrize("write", [write_ours, write_safetensors, write_hub_folder])
def test_weights_that_no_training_makes_are_refused(
    network: Checkpoint,
    tmp_path: Path,
    write: Callable[[Path, Checkpoint], Path],
    damage: Callable[[dict[str, Tensor], str], None],
    message: str,
) -> None:
    assert read_checkpoint(write(tmp_path, network)).classes == CLASSES
    damage(network.weights, NAME)
    said = refusal(write(tmp_path, network))
    assert message in said and (NAME in said or damage is equal)


@pytest.mark.parametrize(("damage", "message"), FAULTS)
def test_so_are_those_of_mmdetection(
    small: dict[str, Tensor], tmp_path: Path, damage: Callable[[dict[str, Tensor], str], None], message: str
) -> None:
    damage(small, THEIRS)
    assert message in refusal(saved(tmp_path / "a.pth", {"state_dict": small}))


@pytest.mark.parametrize("which", ["evaluated", "trained"])
def test_a_run_resumes_from_the_checkpoint_before_one_with_nan(
    network: Checkpoint, tmp_path: Path, which: str
) -> None:
    """Also if the weights that train are NaN and their moving average is not."""
    path = tmp_path / "last.pt"
    average, trains = dict(network.weights), dict(network.weights)
    training = replace(TRAINING, model=trains, average_updates=1)
    for step in (1, 2):
        if step == 2:
            nan(average if which == "evaluated" else trains, NAME)
        new = replace(network, weights=average, step=step, training=replace(training, model=trains))
        save_checkpoint(path, new, keep=2)
    found, file, faults = load_newest(path)
    assert (found.step, file.name) == (1, "last-1.pt")
    assert len(faults) == 1 and NAME in faults[0] and "NaN" in faults[0]


def test_half_precision_and_unused_layers_are_read(network: Checkpoint, tmp_path: Path) -> None:
    """Files of others may hold float16, and a layer that training has driven to zero."""
    network.weights["backbone.body.conv_stem.weight"].zero_()
    halves = {
        key: value.half() if value.is_floating_point() else value for key, value in network.weights.items()
    }
    network.weights = halves
    assert read_checkpoint(write_ours(tmp_path, network)).weights[NAME].dtype is torch.float16


def test_a_network_that_is_not_that_of_the_weights_is_refused_for_every_use(
    network: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--init``, ``publish`` and ``convert`` read files as ``load`` does, and build it on ``meta`` first."""
    network.config = replace(network.config, model=replace(network.config.model, channels=4096))
    assert "does not fit the model" in refusal(write_ours(tmp_path, network))
    network.config = replace(
        network.config, model=replace(network.config.model, backbone="resnet50.tv_in1kk")
    )
    message = refusal(write_ours(tmp_path, network))
    assert "resnet50.tv_in1kk" in message


def test_weights_that_do_not_fit_are_named() -> None:
    model = torch.nn.Linear(4, 2)
    good = model.state_dict()
    load_weights(model, {"weight": torch.ones(2, 4), "bias": torch.zeros(2)}, "a.pt")
    assert model.weight.tolist() == [[1.0] * 4] * 2
    with pytest.raises(UserError, match=r"a\.pt: .*weight: \[3, 4\] in the file, \[2, 4\] in the model"):
        load_weights(model, {**good, "weight": torch.ones(3, 4)}, "a.pt")
    with pytest.raises(UserError, match=r"a\.pt: .*1 missing, 0 unknown \(bias\)"):
        load_weights(model, {"weight": good["weight"]}, "a.pt")
    with pytest.raises(UserError, match=r"a\.pt: .*0 missing, 1 unknown \(extra\)"):
        load_weights(model, {**good, "extra": torch.ones(1)}, "a.pt")
