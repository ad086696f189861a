"""Small detectors with random weights, which detect something everywhere, and padded images for them."""

import torch
from torch import Tensor, nn

from fsaf.config import Config, PredictConfig
from fsaf.data.records import Classes
from fsaf.model.detector import FSAF
from synthetic import tiny_model

CLASSES = Classes(names=("naïve", "dög", "猫"), ids=(7, 3, 90))
CONFIG = Config(
    init="/secret/start.pt",
    model=tiny_model(),
    predict=PredictConfig(candidates=150, max_detections=40),
)
SIZE = (64, 96)


def random_network(config: Config = CONFIG) -> FSAF:
    """Return a detector with random weights, such that scores spread and boxes differ from place to place."""
    torch.manual_seed(0)
    model = FSAF(config.model, len(CLASSES))
    head = model.head
    for layer, bias, std in (
        (head.classes, -1.5, 0.15),
        (head.distances, 0.3, 0.02),
        (head.anchor_classes, -1.5, 0.15),
        (head.anchor_deltas, 0.0, 0.02),
    ):
        if layer is not None:
            assert layer.bias is not None
            nn.init.normal_(layer.weight, std=std)
            nn.init.constant_(layer.bias, bias)
    return model.eval()


def pictures(count: int) -> tuple[Tensor, Tensor]:
    """Return padded images of several sizes and their sizes; the padding is noise, which must not matter."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, *SIZE), generator=generator, dtype=torch.uint8)
    sizes = torch.tensor([[64, 96], [50, 96], [64, 71]])
    return images, sizes.repeat(-(-count // 3), 1)[:count]
