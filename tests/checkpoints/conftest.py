"""MMDetection's checkpoints, shared by the tests of this folder."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from checkpoints.checkpoints import rule, thin_state

ORACLE = Path(__file__).parents[1] / "data" / "oracle"


@pytest.fixture(scope="module")
def shapes() -> dict[str, list[int]]:
    """Names of all tensors of MMDetection's R-50 checkpoint, in its order."""
    return json.loads((ORACLE / "fsaf_r50_shapes.json").read_text())


@pytest.fixture(scope="module")
def r50(shapes: dict[str, list[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the reference figures."""
    path = tmp_path_factory.mktemp("r50") / "fsaf_r50.pth"
    state = {name: rule(name, shape) for name, shape in shapes.items()}
    torch.save({"meta": {"dataset_meta": {"classes": None}}, "state_dict": state}, path)
    return path


@pytest.fixture
def small() -> dict[str, Tensor]:
    """An FSAF of MMDetection that is quick to write: R-50 with a thin head, three classes."""
    return thin_state("resnet50", 3)
