"""The figures of docs/how-fsaf-works.md can be drawn from any detector's raw outputs."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from documents import ROOT
from fsaf.config import ModelConfig
from fsaf.data.batch import pad_boxes
from fsaf.model.detector import FSAF
from scripts import TOOLS, load_script
from synthetic import Picture, paint

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(scope="module")
def tool() -> Iterator[ModuleType]:
    yield load_script(TOOLS / "figures.py")
    plt.close("all")


@pytest.fixture
def scene(tool: ModuleType, tiny_model_config: ModelConfig) -> Any:
    """A picture with a large and a small rectangle, and the outputs of an untrained network for it."""
    image = paint(Picture(height=256, width=320, objects=[(40, 30, 90, 150, 7), (220, 100, 30, 40, 3)]))
    xyxy = torch.tensor([[40.0, 30, 130, 180], [220, 100, 250, 140]])
    boxes, _ = pad_boxes([xyxy], [torch.tensor([7, 3])], [torch.zeros(2, dtype=torch.bool)], [(256, 320)], 2)
    network = FSAF(tiny_model_config, 10).eval()
    with torch.inference_mode():
        outputs = network(torch.from_numpy(image).permute(2, 0, 1)[None], boxes.sizes).free
    return tool.Scene(image=image, boxes=boxes, names=["7", "3"], outputs=outputs)


def test_the_figures_shown_are_those_drawn(tool: ModuleType) -> None:
    assert sorted(tool.FIGURES) == sorted(path.name for path in (ROOT / "docs" / "figures").iterdir())


def test_each_figure_is_drawn(tool: ModuleType, scene: Any) -> None:
    for name, draw in tool.FIGURES.items():
        assert draw(scene).axes, name


def test_the_choice_shown_is_the_smallest_loss(tool: ModuleType, scene: Any) -> None:
    losses, chosen = tool.losses_of_levels(scene)
    assert losses.shape == (2, 5) and np.isinf(losses).any()  # the small one has no location on P7
    assert chosen == losses.argmin(1).tolist()
