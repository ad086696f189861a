"""Fixtures of the tests on the emulated NPU."""

from collections.abc import Iterator
from pathlib import Path

import emulator
import pytest
import torch
from running import Trainer

import fsaf.device.placement
import fsaf.training.optim
import fsaf.training.start
import synthetic


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of sixteen pictures, half of them for validation."""
    folder = tmp_path_factory.mktemp("data")
    synthetic.write_eight(folder, val=8)
    return folder


@pytest.fixture
def train(data: Path, tmp_path: Path) -> Trainer:
    return Trainer(data, tmp_path)


@pytest.fixture
def same_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the CPU run the NPU's program: contiguous plain convolutions, and optimizers on flat tensors."""
    monkeypatch.setattr(fsaf.device.placement, "memory_format", lambda device: torch.contiguous_format)
    monkeypatch.setattr(fsaf.training.start, "speed_up_depthwise", lambda model: None)
    monkeypatch.setattr(fsaf.training.optim, "fused_step_can_be_skipped", lambda device: False)


@pytest.fixture
def lazy() -> Iterator[None]:
    """Let launches and copies wait until the host waits for them."""
    emulator.lazy(True)
    yield
    emulator.lazy(False)
