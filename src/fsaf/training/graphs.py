"""Capture the training step on the device: one graph per batch shape, replayed without work on the host.

A captured graph is the list of kernels that one step launched, with the addresses they read and wrote.
Replaying it launches them all at once. This is possible because the step is one fixed program
(docs/static-shapes.md): everything that differs between steps is in tensors, also the learning rate and the
number of averaged steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fsaf.config import Config
from fsaf.data.batch import Boxes
from fsaf.device import GraphTools
from fsaf.errors import RecipeError
from fsaf.objective.objective import LossTerms
from fsaf.training.optim import set_rate
from fsaf.training.run import Run
from fsaf.training.step import update

WARM_UP = 3
"""Eager steps per shape before capture, so that libraries pick kernels and allocate workspaces first."""


@dataclass(kw_only=True)
class _Captured:
    graph: Any
    images: Tensor
    boxes: Boxes
    results: tuple[LossTerms, Tensor]


def open_tools(config: Config, device: torch.device, processes: int = 1) -> GraphTools | None:
    """Return what captures graphs on ``device``; None if ``train.graphs`` is off.

    Raises UserError if the device does not support graphs, for several processes, and with
    ``objective.online_after``.
    """
    if not config.train.graphs:
        return None
    if processes > 1:
        raise RecipeError("train.graphs = true: works in one process; with several leave it false")
    if config.objective.online_after:
        raise RecipeError(
            "train.graphs = true: one graph makes every step; with objective.online_after leave it false"
        )
    return GraphTools(device)


class CapturedStep:
    """``train_step`` for a run on a device that captures graphs.

    Its results stay valid until the next step.
    """

    def __init__(
        self,
        run: Run,
        forward_loss: Callable[[Tensor, Boxes], LossTerms],
        tools: GraphTools,
        say: Callable[[str], None],
    ) -> None:
        """Set up the step. tools: of ``open_tools``. say: prints a line for each capture."""
        self.run, self.forward_loss, self.tools, self.say = run, forward_loss, tools, say
        self.steps: dict[tuple[int, ...], int] = {}
        self.captured: dict[tuple[int, ...], _Captured] = {}
        self.pool: Any = None  # graphs take turns in one piece of memory

    def __call__(self, images: Tensor, boxes: Boxes, rate: float) -> tuple[LossTerms, Tensor]:
        """Make a step; arguments and results as in ``train_step``."""
        shape = tuple(images.shape)
        done = self.steps.get(shape, 0)
        self.steps[shape] = done + 1
        set_rate(self.run.optimizer, rate)
        self.run.step += 1
        if done < WARM_UP:
            with self.tools.beside():
                terms, norm = update(self.run, self.forward_loss, images, boxes)
            # Results that require gradients would tie the captured step to this step's stream.
            return tree_map(Tensor.detach, terms), norm
        if done == WARM_UP:
            self.captured[shape] = self._capture(images, boxes)
            size = " x ".join(map(str, shape))
            self.say(f"captured the step for batches of {size} as one graph")
        captured = self.captured[shape]
        captured.images.copy_(images)
        for mine, new in zip(captured.boxes, boxes, strict=True):
            mine.copy_(new)
        captured.graph.replay()
        return captured.results

    def _capture(self, images: Tensor, boxes: Boxes) -> _Captured:
        """Record one step without running it; it reads its batch from copies of these tensors."""
        images, boxes = images.clone(), Boxes(*(tensor.clone() for tensor in boxes))
        graph = self.tools.new()
        with self.tools.capture(graph, self.pool):
            terms, norm = update(self.run, self.forward_loss, images, boxes)
        results = tree_map(Tensor.detach, terms), norm
        self.pool = self.pool or graph.pool()
        return _Captured(graph=graph, images=images, boxes=boxes, results=results)
