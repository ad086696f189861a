"""What happened in the steps since the last record, kept on the device until it is read."""

import time
from typing import Any

import torch
from torch import Tensor

from fsaf.data.batch import Batch
from fsaf.errors import UserError
from fsaf.objective.objective import LossTerms
from fsaf.processes.group import gather_all

NAMES = ("loss", "loss_cls", "loss_box", "num_pos", "pos_recall", "grad_norm")
LOSS, NORM = NAMES.index("loss"), NAMES.index("grad_norm")


class Window:
    """What happened since the last record; stays on the device until it is read."""

    def __init__(self) -> None:
        self.before = 0.0
        """Seconds that its steps took before the run was stopped."""
        self.start_clock()
        self.terms: list[Tensor] = []
        self.ids: list[list[int]] = []
        self.data_seconds, self.cut = 0.0, 0

    def start_clock(self) -> None:
        """To be called as its first step begins, or goes on."""
        self.start = time.perf_counter() - self.before

    def add(self, batch: Batch, terms: LossTerms, norm: Tensor) -> None:
        """Take in a step."""
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
        self.cut += batch.cut

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint; empty where there was no step. Waits for the device."""
        if not self.terms:
            return {}
        return {
            "terms": torch.stack(self.terms).cpu(),
            "ids": self.ids,
            "cut": self.cut,
            "seconds": time.perf_counter() - self.start,
            "data_seconds": self.data_seconds,
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore what ``state_dict`` gave: the steps that follow make the same record as in one go."""
        if not state:
            return
        self.terms = list(state["terms"].to(device))
        self.ids, self.cut = state["ids"], state["cut"]
        self.before, self.data_seconds = state["seconds"], state["data_seconds"]

    def read(self, last_good: str, overflow_skipped: bool) -> dict[str, Any]:
        """Means over the window and all processes; of ``grad_norm`` over the steps that were taken, None if
        none was. Images a second are those of all processes.

        overflow_skipped: steps whose gradients are not finite were not taken (fp16).
        Raises UserError, with the text ``last_good`` in it, where a loss, or a gradient that was taken, is
        not finite.
        """
        parts = gather_all(self.state_dict())  # so all processes stop at the same fault
        check_finite(parts, last_good, overflow_skipped)
        rows = torch.cat([part["terms"] for part in parts])
        self.cut = sum(part["cut"] for part in parts)
        norms = rows[:, NORM]
        taken = norms.isfinite() | (not overflow_skipped)
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


def check_finite(parts: list[dict[str, Any]], last_good: str, overflow_skipped: bool) -> None:
    """Raise UserError where the windows of some process, as ``Window.state_dict`` gives them, hold a loss, or
    a gradient that was taken, which is not finite. Arguments as for ``Window.read``."""
    if not any(parts):
        return
    rows = torch.cat([part["terms"] for part in parts])
    ids = [batch for part in parts for batch in part["ids"]]
    norms = rows[:, NORM]
    taken = norms.isfinite() | (not overflow_skipped)
    for what, finite in (("loss is", rows[:, LOSS].isfinite()), ("gradients are", norms.isfinite() | ~taken)):
        if not finite.all():
            raise UserError(
                f"the {what} not finite on images {ids[finite.tolist().index(False)]}; {last_good}. "
                "Lower optim.lr, check these images' boxes, or use another train.precision"
            )
