"""What happened in the steps since the last record, kept on the device until it is read."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsaf.data.batch import Batch
from fsaf.errors import UserError
from fsaf.objective.objective import LossTerms
from fsaf.train.distributed import gather_all


class Window:
    """What happened since the last record; stays on the device until it is read."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.terms: list[Tensor] = []
        self.ids: list[list[int]] = []
        self.data_seconds, self.cut = 0.0, 0

    def add(self, batch: Batch, terms: LossTerms, norm: Tensor) -> None:
        """Take in a step."""
        scalars = (
            terms.loss,
            terms.loss_cls_l.sum(),
            terms.loss_box_l.sum(),
            terms.num_pos,
            terms.pos_recall,
        )
        self.terms.append(torch.cat([torch.stack([*scalars, norm]), terms.level_share_l]).detach())
        self.ids.append(batch.ids)
        self.cut += batch.cut

    def read(self, last_good: Path, overflow_skipped: bool) -> dict[str, Any]:
        """Means over the window and all processes; of ``grad_norm`` over the steps that were taken, None if
        none was. Images a second are those of all processes.

        overflow_skipped: steps whose gradients are not finite were not taken (fp16).
        Raises UserError where a loss, or a gradient that was taken, is not finite.
        """
        seconds = time.perf_counter() - self.start
        images = sum(map(len, self.ids))
        mine = (torch.stack(self.terms).cpu(), self.ids, images / seconds, self.cut)
        parts = gather_all(mine)  # so all processes stop at the same fault
        rows = torch.cat([part[0] for part in parts])
        ids = [batch for part in parts for batch in part[1]]
        self.cut = sum(part[3] for part in parts)
        norms = rows[:, 5]
        taken = norms.isfinite() | (not overflow_skipped)
        for what, values in (("loss is", rows[:, 0]), ("gradients are", norms[taken])):
            bad = (~values.isfinite()).tolist()
            if any(bad):
                kept = (
                    f"the last good checkpoint is {last_good}" if last_good.is_file() else "no checkpoint yet"
                )
                raise UserError(
                    f"the {what} not finite on images {ids[bad.index(True)]}; {kept}. "
                    "Lower optim.lr, check these images' boxes, or use another train.precision"
                )
        names = ("loss", "loss_cls", "loss_box", "num_pos", "pos_recall", "grad_norm")
        mean: list[Any] = rows.mean(0).tolist()
        mean[5] = norms[taken].mean().item() if taken.any() else None
        steps = len(self.terms)
        return dict(zip(names, mean, strict=False)) | {
            "images_per_second": sum(part[2] for part in parts),
            "data_seconds": self.data_seconds / steps,
            "step_seconds": seconds / steps,
            "skipped_steps": int((~taken).sum()) // len(parts),
            "level_share": mean[len(names) :],
        }
