"""Collect the loss terms of the steps between two records."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fsaf.data.batch import Batch
from fsaf.errors import UserError
from fsaf.objective.objective import LossTerms
from fsaf.processes.group import gather_all


@dataclass(kw_only=True)
class Blame:
    """Values for the error message about a step that went wrong."""

    step: int
    """The last step made."""
    name_image: Callable[[int], str]
    """Returns the file of an image id."""
    last_good: str
    """A phrase that names the checkpoint to go back to."""
    overflow_skipped: bool
    """True if steps whose gradients are not finite were skipped (fp16)."""


NAMES = ("loss", "loss_cls", "loss_box", "num_pos", "pos_recall", "grad_norm")
LOSS, NORM = NAMES.index("loss"), NAMES.index("grad_norm")


class Window:
    """Loss terms, images and times since the last record; tensors stay on the device until ``read``."""

    def __init__(self) -> None:
        self.before = 0.0
        """Seconds that its steps took before the run was interrupted."""
        self.start_clock()
        self.terms: list[Tensor] = []
        self.ids: list[list[int]] = []
        self.rates: list[float] = []
        self.data_seconds, self.cut = 0.0, 0

    def start_clock(self) -> None:
        """Start measuring. Call it when the first step begins, and when a resumed run goes on."""
        self.start = time.perf_counter() - self.before

    def add(self, batch: Batch, terms: LossTerms, norm: Tensor, rate: float) -> None:
        """Add a step with its learning rate."""
        scalars = (
            terms.loss,
            terms.loss_cls_l.sum() + terms.anchor_cls,
            terms.loss_box_l.sum() + terms.anchor_box,
            terms.statistics.num_pos,
            terms.statistics.pos_recall,
            norm,
        )
        row = torch.cat([torch.stack(scalars), terms.statistics.level_share_l])
        self.terms.append(row.detach())
        self.ids.append(batch.ids)
        self.rates.append(rate)
        self.cut += batch.cut

    def state_dict(self) -> dict[str, Any]:
        """Return everything, for a checkpoint; empty if there was no step. Waits for the device."""
        if not self.terms:
            return {}
        return {
            "terms": torch.stack(self.terms).cpu(),
            "ids": self.ids,
            "rates": self.rates,
            "cut": self.cut,
            "seconds": time.perf_counter() - self.start,
            "data_seconds": self.data_seconds,
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore the result of ``state_dict``: the next record is the same as without the interruption."""
        if not state:
            return
        terms, ids = state["terms"], state["ids"]
        rates = state.get("rates", [math.nan] * len(ids))  # older files hold none
        if terms.dim() != 2 or terms.shape[1] < len(NAMES) or len(terms) != len(ids):
            raise ValueError("the records of the last steps do not fit together")
        self.terms, self.ids, self.rates, self.cut = list(terms.to(device)), ids, rates, state["cut"]
        self.before, self.data_seconds = state["seconds"], state["data_seconds"]

    def read(self, blame: Blame) -> dict[str, Any]:
        """Return means over the window and all processes.

        ``grad_norm`` is the mean over steps that were not skipped, None if all were. ``images_per_second``
        counts the images of all processes. Raises UserError if the loss or the gradient of a step that was
        not skipped is not finite.
        """
        parts = gather_all(self.state_dict())  # so that all processes stop at the same fault
        check_finite(parts, blame)
        rows = torch.cat([part["terms"] for part in parts])
        self.cut = sum(part["cut"] for part in parts)
        norms = rows[:, NORM]
        taken = norms.isfinite() | (not blame.overflow_skipped)
        mean: list[Any] = rows.mean(0).tolist()
        mean[NORM] = norms[taken].mean().item() if taken.any() else None
        steps = len(self.terms)
        return dict(zip(NAMES, mean, strict=False)) | {
            "images_per_second": sum(sum(map(len, part["ids"])) / part["seconds"] for part in parts),
            "data_seconds": self.data_seconds / steps,
            "step_seconds": parts[0]["seconds"] / steps,
            "skipped_steps": int((~taken).sum()) // len(parts),
            "level_share": mean[len(NAMES) :],
        }


def check_finite(parts: list[dict[str, Any]], blame: Blame) -> None:
    """Raise UserError as ``Window.read``. parts: the result of ``Window.state_dict`` of each process."""
    for part in filter(None, parts):
        losses, norms = part["terms"][:, LOSS], part["terms"][:, NORM]
        taken = norms.isfinite() | (not blame.overflow_skipped)
        for what, finite in (("loss is", losses.isfinite()), ("gradients are", norms.isfinite() | ~taken)):
            if finite.all():
                continue
            row = finite.tolist().index(False)
            step = blame.step - len(losses) + row + 1
            images = ", ".join(blame.name_image(id_) for id_ in part["ids"][row])
            raise UserError(
                f"the {what} not finite in step {step}, at the learning rate {part['rates'][row]:.3g}, on "
                f"{images}; {blame.last_good}. Lower optim.lr, check the boxes of these images, or use "
                "another train.precision; see docs/troubleshooting.md"
            )


def mean_loss(parts: list[dict[str, Any]]) -> float | None:
    """Return the mean loss of the windows of all processes; None if they are empty."""
    rows = [part["terms"][:, LOSS] for part in parts if part]
    return torch.cat(rows).mean().item() if rows else None
