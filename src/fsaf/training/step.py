"""One training step: from uint8 images and padded boxes to updated weights.

The step is a fixed program for each batch shape, whatever is in the batch: nothing in it waits for the
device, and no shape depends on the data (docs/static-shapes.md). ``fsaf.testing`` records its operators, and
tests/training/test_step.py checks them.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from fsaf.config import ObjectiveConfig
from fsaf.data.batch import Boxes
from fsaf.device import check_compile
from fsaf.model.detector import FSAF
from fsaf.objective.objective import LossTerms, Sums, objective
from fsaf.processes.group import mean_over_processes, without_averaging
from fsaf.training.optim import set_rate
from fsaf.training.precision import Precision
from fsaf.training.run import Run

MAX_GRAPHS = 256
"""Batch shapes that may be compiled; PyTorch stops at 8 by default."""


class ForwardLoss(nn.Module):
    """Network and objective as one module, which compiles into one graph per batch shape."""

    def __init__(self, model: FSAF, config: ObjectiveConfig, precision: Precision) -> None:
        super().__init__()
        self.model, self.config, self.precision = model, config, precision
        self.by_size = replace(config, level_choice="size", online_after=0)

    def forward(
        self, images: Tensor, boxes: Boxes, earlier: Sums | None = None, by_size: bool = False
    ) -> LossTerms:
        """Return the loss terms of a batch.

        earlier: sums of the micro-batches before it in this step. by_size: choose levels by size.
        """
        config = self.by_size if by_size else self.config
        with self.precision.autocast():
            outputs = self.model(images, boxes.sizes)
        mean_counts = mean_over_processes if config.normalise == "mean" else None
        return objective(outputs, boxes, config, mean_counts, earlier)


def compile_forward_loss(forward_loss: ForwardLoss, backend: str = "inductor") -> None:
    """Compile ``forward_loss``, at the first batch of each shape, into one graph without a break.

    Raises UserError if the device of the network cannot do that (``fsaf.device.check_compile``).
    """
    check_compile(forward_loss.model.mean.device, backend)
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_GRAPHS)
    forward_loss.compile(fullgraph=True, dynamic=False, backend=backend)


def train_step(
    run: Run, forward_loss: Callable[..., LossTerms], images: Tensor, boxes: Boxes, rate: float
) -> tuple[LossTerms, Tensor]:
    """Update the run's weights with one batch, which must be on their device.

    images: (B, 3, H, W) uint8. They pass through the network in ``train.accumulate`` equal parts, which gives
    the gradients of one pass. rate: learning rate. Returns the loss terms and the norm of the gradients
    before clipping; both stay on the device.
    """
    set_rate(run.optimizer, rate)
    run.step += 1
    return update(run, forward_loss, images, boxes)


def update(
    run: Run, forward_loss: Callable[..., LossTerms], images: Tensor, boxes: Boxes
) -> tuple[LossTerms, Tensor]:
    """Do the part of a step that runs on the device; nothing on the host changes."""
    run.optimizer.zero_grad(set_to_none=True)
    parts = run.config.train.accumulate
    rows = len(images) // parts
    by_size = run.step <= run.config.objective.online_after
    terms, earlier = None, Sums.zero(images.device) if parts > 1 else None
    for part in range(parts):
        of_part = slice(part * rows, (part + 1) * rows)
        # The last backward pass averages over processes, including the gradients of earlier parts.
        with nullcontext() if part == parts - 1 else without_averaging(forward_loss):
            before = terms
            these = Boxes(*(field[of_part] for field in boxes))
            terms = forward_loss(images[of_part], these, earlier, by_size)
            if before is not None:  # the divisor counts the positives of all parts, so it has grown
                scale_gradients(run.model, before.divisor / terms.divisor)
            run.precision.backward(terms.loss)
            earlier = terms.sums
    assert terms is not None
    norm = run.precision.step(run.optimizer, run.model.parameters(), run.config.optim.clip_norm)
    if run.average:
        run.average.update(run.model)
    return terms, norm


@torch.no_grad()
def scale_gradients(model: nn.Module, factor: Tensor) -> None:
    """Multiply the gradients by a scalar tensor."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    torch._foreach_mul_(gradients, factor)


class FirstSteps:
    """Print how long the first step of each batch shape took, since its graph is compiled then."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.shapes: set[tuple[int, ...]] = set()

    def note(self, images: Tensor, seconds: float) -> None:
        """Print a line if this is the first step of its shape. Call it after every step, with its seconds."""
        shape = tuple(images.shape)
        if shape not in self.shapes:
            self.shapes.add(shape)
            size = " x ".join(map(str, shape))
            self.say(f"compiled network and objective for batches of {size} in {seconds:.1f} s")
