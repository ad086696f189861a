"""The objective on the validation split, from the forward passes of the evaluation itself."""

import functools

import torch
from torch import Tensor

from fsaf.config import ObjectiveConfig
from fsaf.data.batch import Batch
from fsaf.detection.torch_network import TorchNetwork
from fsaf.model.detector import FSAF
from fsaf.model.outputs import RawOutputs
from fsaf.objective.objective import Sums, divide, objective
from fsaf.processes import group


class ValidationLoss(TorchNetwork):
    """The network of an evaluation; adds up the objective of its batches, in float32 and without gradients.

    All images count as one batch: the sums of losses are divided by the positives of all. So the loss does
    not depend on the size of batches or the number of processes.
    """

    def __init__(self, module: FSAF, config: ObjectiveConfig) -> None:
        super().__init__(module)
        self.config = config
        self.outputs: RawOutputs | None = None
        self.sums = Sums.zero(module.mean.device)
        self.batches = 0

    def _run(self, images: Tensor, sizes_b2: Tensor) -> tuple[RawOutputs, Tensor]:
        self.outputs, sizes_b2 = super()._run(images, sizes_b2)
        return self.outputs, sizes_b2

    @torch.inference_mode()
    def add(self, batch: Batch) -> None:
        """Add the batch that the network has just seen."""
        assert self.outputs is not None
        boxes = batch.boxes.to(self.module.mean.device)
        self.sums = objective(self.outputs, boxes, self.config, earlier=self.sums).sums
        self.outputs, self.batches = None, self.batches + 1

    def value(self) -> float | None:
        """Return the loss of the batches of all processes; None if no batch was added. All call it."""
        parts = group.gather_all((self.batches, self.sums.to_host()))
        if not sum(batches for batches, _ in parts):
            return None
        sums = functools.reduce(Sums.plus, (each for _, each in parts))
        branches = self.module.settings.branches
        terms = divide(
            sums, torch.empty(0), self.config, "anchor_free" in branches, "anchor_based" in branches
        )
        return terms.loss.item()
