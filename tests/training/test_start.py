"""Test how a run starts: its folder, its weights, and when it resumes."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from fsaf.checkpoints.format import load_checkpoint
from fsaf.config import Config, TrainConfig
from fsaf.data.records import Classes
from fsaf.device import has_winograd
from fsaf.errors import UserError
from fsaf.model.convolution import Conv3x3
from fsaf.training import resume as module
from fsaf.training.resume import find_earlier
from fsaf.training.run import Run
from fsaf.training.start import start_run
from synthetic import tiny_model

CLASSES = Classes(names=("a", "b"), ids=(1, 2))
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def start(out: Path, resume: Any = False, winograd: bool = True, **train: Any) -> Run:
    model = tiny_model(convs=0, frozen_stages=1)
    config = Config(out=str(out), resume=resume, winograd=winograd, model=model, train=TrainConfig(**train))
    return start_run(config, CLASSES, torch.device("cpu"), find_earlier(config))


def test_steps_that_fp16_skipped_do_not_stop_a_run_that_goes_on_in_another_precision(tmp_path: Path) -> None:
    """In fp32 a gradient that is not finite is a fault; fp16 has skipped these steps."""
    first = start(tmp_path, precision="fp16")
    row = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, float("inf")] + [0.2] * 5)
    first.window.terms, first.window.ids = [row], [[7]]
    first.save()
    start(tmp_path, True, precision="fp16").save()
    second = start(tmp_path, True, precision="fp32")
    second.save()
    assert load_checkpoint(tmp_path / "checkpoints" / "last.pt").config.train.precision == "fp32"


def test_a_checkpoint_holds_the_backbones_normalisation(tmp_path: Path) -> None:
    """Another version of timm may have other values for the same backbone."""
    run = start(tmp_path)
    run.save()
    stored = load_checkpoint(run.last_pt).config.model
    assert stored.mean == IMAGENET_MEAN and stored.std == IMAGENET_STD
    assert (run.config.model.mean, run.config.model.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_winograd_is_used_on_a_cpu_unless_turned_off(tmp_path: Path) -> None:
    def used(run: Run) -> list[bool]:
        return [
            any(isinstance(module, Conv3x3) for module in model.modules())
            for model in (run.model, run.evaluated)
        ]

    assert used(start(tmp_path / "a", ema=0.9)) == 2 * [has_winograd(torch.device("cpu"))]
    assert used(start(tmp_path / "b", winograd=False, ema=0.9)) == [False, False]


def test_the_folder_is_the_main_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine may have its own folder of that name; only the main process looks at it."""
    start(tmp_path).save()
    with pytest.raises(UserError, match="holds a run already"):
        start(tmp_path)
    monkeypatch.setattr(module.group, "from_main", lambda make: None)
    assert start(tmp_path).step == 0


def test_a_restart_goes_on_with_what_its_own_launch_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun also restarts processes that stopped with "holds a run already"."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "first")
    start(tmp_path).save()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert start(tmp_path).config.resume is True
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "second")
    with pytest.raises(UserError, match="holds a run already"):
        start(tmp_path)
    assert start(tmp_path, "auto").config.resume is True
    assert start(tmp_path / "new").config.resume is False


PLACES = [
    "optimizer", "optimizer.state", "optimizer.state.0", "optimizer.state.0.exp_avg",
    "optimizer.param_groups", "optimizer.param_groups.0", "optimizer.param_groups.0.lr",
    "optimizer.param_groups.0.params", "processes", "processes.0", "processes.0.random",
    "processes.0.random.cpu", "processes.0.window", "processes.0.window.terms", "processes.0.window.ids",
    "steps_per_epoch", "losses", "data", "position", "model",
]  # fmt: skip
VALUES: list[Any] = [
    7,
    -1,
    "x",
    None,
    [],
    {},
    [1],
    {"a": 1},
    {0: 1},
    torch.ones(3),
    torch.tensor([float("nan")]),
]


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_a_damaged_training_state_is_refused_in_one_message(tmp_path: Path, place: str) -> None:
    """Some values are right in their place: then the run resumes."""
    first = start(tmp_path)
    row = torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0, 1.0] + [0.2] * 5)
    first.window.terms, first.window.ids, first.window.rates = [row], [[7]], [0.1]
    first.save()
    whole = torch.load(first.last_pt, weights_only=True)
    refused = 0
    for value in VALUES:
        content = copy.deepcopy(whole)
        *path, last = (int(key) if key.isdigit() else key for key in place.split("."))
        at = content["training"]
        for key in path:
            at = at[key]
        at[last] = value
        torch.save(content, first.last_pt)
        try:
            start(tmp_path, True)
        except UserError as error:
            refused += 1
            assert str(error).startswith(str(first.last_pt)) and "\n" not in str(error)
    assert refused >= 5
