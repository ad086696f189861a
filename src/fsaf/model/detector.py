"""The detector network: images to raw outputs.

Shapes: B batch, H and W of the padded batch.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from fsaf.config import ModelConfig
from fsaf.model.backbone import Backbone
from fsaf.model.head import Head
from fsaf.model.outputs import RawOutputs
from fsaf.model.pyramid import Pyramid


class FSAF(nn.Module):
    """FSAF detector: backbone, feature pyramid and head (Zhu, He and Savvides, CVPR 2019, section 3.1).

    Its weights are random. ``fsaf.checkpoints.backbone`` loads a pretrained backbone, and ``fsaf.load`` opens
    a trained detector, whose ``model`` is such a network.
    Raises UserError if the backbone does not fit (``fsaf.model.backbone``).

    >>> import torch
    >>> from fsaf import FSAF
    >>> from fsaf.config import ModelConfig
    >>> model = FSAF(ModelConfig(backbone="resnet18", channels=64), num_classes=3).eval()
    >>> images = torch.randint(0, 256, (1, 3, 256, 320), dtype=torch.uint8)
    >>> outputs = model(images)
    >>> [tuple(x.shape) for x in outputs.free.logits]
    [(1, 3, 32, 40), (1, 3, 16, 20), (1, 3, 8, 10), (1, 3, 4, 5), (1, 3, 2, 3)]
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = Backbone(
            config.backbone, frozen_stages=config.frozen_stages, frozen_norm=config.frozen_norm
        )
        self.pyramid = Pyramid(self.backbone.channels, config.channels, config.separable)
        self.head = Head(
            config.channels, config.convs, config.norm, num_classes, config.branches, config.separable
        )
        features = self.backbone.features
        mean, std = config.mean or features.mean, config.std or features.std
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.settings = replace(config, mean=mean, std=std)
        """Settings with the mean and deviation in use. Checkpoints store these, because timm's may change."""

    def normalise(self, images: Tensor, sizes_b2: Tensor | None) -> Tensor:
        """Subtract the mean, divide by the deviation, and set the padding to zero.

        images: (B, 3, H, W) RGB, uint8 or float, 0..255. sizes_b2: (B, 2) height and width of each image
        inside its padding; None if no image has padding.
        """
        # In place and in contiguous layout: a third of the time on a CPU.
        x = images.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        x = x.sub_(self.mean).div_(self.std)
        if sizes_b2 is None:
            return x
        rows = torch.arange(images.shape[2], device=images.device) < sizes_b2[:, :1]
        columns = torch.arange(images.shape[3], device=images.device) < sizes_b2[:, 1:]
        inside = rows[:, None, :, None] & columns[:, None, None, :]
        return x.mul_(inside)

    def forward(self, images: Tensor, sizes_b2: Tensor | None = None) -> RawOutputs:
        """Compute the raw outputs of a batch; arguments as for ``normalise``."""
        features = self.backbone(self.normalise(images, sizes_b2))
        outputs: RawOutputs = self.head(self.pyramid(features))
        return outputs
