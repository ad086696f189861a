"""Batch norms merged into convolutions: the same function, and the network itself untouched."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fsaf.config import ModelConfig
from fsaf.model.detector import FSAF
from fsaf.model.fold import fold_batch_norms


def network(backbone: str) -> FSAF:
    """Return a network whose batch norms do something."""
    torch.manual_seed(0)
    model = FSAF(ModelConfig(backbone=backbone, channels=64, convs=0), 2).eval()
    for norm in norms(model):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.normal_(norm.bias, 0, 0.1)
    return model


def norms(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, _BatchNorm)]


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "mobilenetv4_conv_small_035"])
def test_outputs_are_the_same_but_for_rounding(backbone: str) -> None:
    model = network(backbone)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_batch_norms(model)
    assert norms(model) and not norms(folded)
    images = torch.randint(0, 256, (2, 3, 96, 160), dtype=torch.uint8)
    sizes = torch.tensor([[96, 160], [60, 130]])
    with torch.inference_mode():
        want, got = model(images, sizes).free, folded(images, sizes).free
    assert want is not None and got is not None
    for maps in zip(want, got, strict=True):
        for one, other in zip(*maps, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-4 * float(one.abs().max()))
    after = model.state_dict()
    assert before.keys() == after.keys() and all(before[name].equal(after[name]) for name in before)


def test_a_network_without_batch_norms_stays() -> None:
    model = FSAF(ModelConfig(backbone="test_convnext", channels=64, convs=0), 2).eval()
    assert fold_batch_norms(model) is model


class Twice(nn.Module):
    """A backbone that also returns what goes into a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        nn.init.constant_(self.norm.weight, 2.0)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.convolution(images)
        return [x, self.norm(x)]


def test_an_output_that_is_used_elsewhere_too_is_not_merged() -> None:
    model = network("test_resnet")
    model.backbone = Twice().eval()  # type: ignore[assignment]
    assert fold_batch_norms(model) is model
