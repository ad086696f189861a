"""A small data set, a checkpoint, and an empty place to run commands in."""

import shutil
from pathlib import Path

import pytest
import torch

from cli.commands import TINY
from fsaf.detection.detector import Detector
from fsaf.model.detector import FSAF
from fsaf.recipe import build_config
from synthetic import CLASSES, recipe, write_eight


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_eight(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(root: Path) -> Path:
    """An untrained detector that detects something everywhere."""
    torch.manual_seed(0)
    config = build_config(recipe(root, root / "out", **TINY, predict={"score_threshold": 0.0}), where="")
    path = root / "run" / "checkpoints" / "best.pt"
    Detector(FSAF(config.model, 3).eval(), CLASSES, config).save(path)
    return path


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A copy of the data set that a test may damage."""
    shutil.copytree(root, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
