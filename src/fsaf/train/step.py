"""One training step: from uint8 images and padded boxes to updated weights.

A fixed program for each batch shape, whatever is in the batch: nothing in it waits for the device, and no
shape depends on the data (docs/static-shapes.md; tests/train/test_step.py holds it to ``fsaf.testing``).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fsaf.config import ObjectiveConfig
from fsaf.data.batch import Boxes
from fsaf.model.detector import FSAF
from fsaf.objective.objective import LossTerms, objective
from fsaf.train.distributed import mean_over_processes
from fsaf.train.optim import set_rate
from fsaf.train.precision import Precision
from fsaf.train.run import Run

MAX_GRAPHS = 256
"""Batch shapes that may be compiled; PyTorch stops at 8 by default."""


class ForwardLoss(nn.Module):
    """Network and objective in one, so that they compile into one graph a batch shape."""

    def __init__(self, model: FSAF, config: ObjectiveConfig, precision: Precision) -> None:
        super().__init__()
        self.model, self.config, self.precision = model, config, precision

    def forward(self, images: Tensor, boxes: Boxes) -> LossTerms:
        """Loss terms of a batch."""
        with self.precision.autocast():
            outputs = self.model(images, boxes.sizes)
        mean_counts = mean_over_processes if self.config.normalise == "mean" else None
        return objective(outputs, boxes, self.config, mean_counts)


def compile_forward_loss(forward_loss: ForwardLoss) -> None:
    """Have ``forward_loss`` compiled, at the first batch of each shape, into one graph without a break."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_GRAPHS)
    forward_loss.compile(fullgraph=True, dynamic=False)


def train_step(
    run: Run, forward_loss: Callable[[Tensor, Boxes], LossTerms], images: Tensor, boxes: Boxes, rate: float
) -> tuple[LossTerms, Tensor]:
    """Update the run's weights by one batch that lies on their device.

    images: (B, 3, H, W) uint8. rate: learning rate. Returns the loss terms and the gradients' norm before
    clipping; they stay on the device.
    """
    set_rate(run.optimizer, rate)
    run.step += 1
    return update(run, forward_loss, images, boxes)


def update(
    run: Run, forward_loss: Callable[[Tensor, Boxes], LossTerms], images: Tensor, boxes: Boxes
) -> tuple[LossTerms, Tensor]:
    """The part of a step that is work for the device: nothing on the host changes."""
    terms = forward_loss(images, boxes)
    norm = run.precision.step(terms.loss, run.optimizer, run.model.parameters(), run.config.optim.clip_norm)
    if run.average:
        run.average.update(run.model)
    return terms, norm


class FirstSteps:
    """Says how long the first step of each batch shape took: that is when its graph is compiled."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.shapes: set[tuple[int, ...]] = set()

    def note(self, images: Tensor, seconds: float) -> None:
        """To be called after every step, with how long it took."""
        shape = tuple(images.shape)
        if shape not in self.shapes:
            self.shapes.add(shape)
            size = " x ".join(map(str, shape))
            self.say(f"compiled network and objective for batches of {size} in {seconds:.1f} s")
