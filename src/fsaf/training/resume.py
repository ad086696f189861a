"""Resume a run: find its checkpoint, convert how far it has come, and say what has changed since."""

import hashlib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsaf.checkpoints.format import Checkpoint, checkpoints_at, load_newest
from fsaf.config import Config, to_dict
from fsaf.data.records import Records
from fsaf.errors import UserError
from fsaf.files import check_folder
from fsaf.keys import flatten
from fsaf.processes import group
from fsaf.text import counted
from fsaf.training.run import Run

NO_SETTINGS = ("init", "resume", "out")
"""Keys that say where a run starts and is stored, not how it trains."""


@dataclass(kw_only=True)
class Earlier:
    """The checkpoint that a run resumes from."""

    checkpoint: Checkpoint
    path: Path
    faults: list[str]
    """Messages about newer checkpoints that are damaged."""


def find_earlier(config: Config) -> Earlier | None:
    """Return the checkpoint that training with ``config`` resumes from; None if it starts a new run.

    With ``resume`` ``auto`` a run is resumed if there is one. Processes that a launcher has restarted resume
    only from a checkpoint that this launch wrote; otherwise a failed start would silently continue an older
    run. Raises UserError if there is a run and it is not to be resumed, or the other way round.
    """
    restarted = max(group.gather_all(group.restarts())) > 0

    def find() -> Earlier | None:
        if config.out is None:
            raise UserError("out is not set; give the run folder with --out FOLDER")
        out = Path(config.out)
        check_folder(out)
        if str(out) != os.fsencode(out).decode("utf-8", "replace"):
            raise UserError(f"{out}: is not UTF-8, which TensorBoard needs; give another --out FOLDER")
        last_pt = out / "checkpoints" / "last.pt"
        exists = bool(checkpoints_at(last_pt))
        if config.resume is True or (exists and (config.resume or restarted)):
            checkpoint, path, faults = load_newest(last_pt)
            if config.resume or checkpoint.launch == group.launch_id():
                return Earlier(checkpoint=checkpoint, path=path, faults=faults)
        if exists:
            raise UserError(
                f"{out}: holds a run already; resume it with fsaf train --resume {shlex.quote(str(out))}, or "
                "give another --out FOLDER"
            )
        return None

    return group.from_main(find)


def take_up(run: Run, steps_per_epoch: int, images_per_step: int, splits: dict[str, Records]) -> None:
    """Fit a run to the data it goes on with, and note what has changed since its checkpoint was written.

    The epoch and the part of it that is done stay; steps are converted. steps_per_epoch, images_per_step: of
    this training, all processes together. splits: by name, ``train`` and perhaps ``val``.
    """
    data = {f"data.{name}": fingerprint(records) for name, records in splits.items()}
    if run.images_per_step not in (None, images_per_step):
        run.notes.append(f"changed: images a step {run.images_per_step} -> {images_per_step}")
    if run.steps_per_epoch not in (None, steps_per_epoch):
        assert run.steps_per_epoch is not None
        epochs, steps = divmod(run.position, run.steps_per_epoch)
        run.position = epochs * steps_per_epoch + steps * steps_per_epoch // run.steps_per_epoch
    for name, now in data.items():
        if (before := run.data.get(name, now)) == now:
            continue
        run.notes.append(f"changed: {name} {before} -> {now}")
        if name == "data.val" and run.best is not None:
            run.notes.append(
                f"AP {run.best:.3f} was measured on other images and no longer counts for best.pt"
            )
            run.best, run.best_epoch, run.waited = None, 0, 0
    run.steps_per_epoch, run.images_per_step, run.data = steps_per_epoch, images_per_step, run.data | data


def changed_settings(before: Config, now: Config) -> list[str]:
    """Return a line for each setting of a run that has changed."""
    old, new = flatten(to_dict(before)), flatten(to_dict(now))
    return [
        f"changed: {key} {_shown(old.get(key))} -> {_shown(value)}"
        for key, value in new.items()
        if key not in NO_SETTINGS and old.get(key) != value
    ]


def fingerprint(records: Records) -> str:
    """Return a text that differs for a split of other images, boxes or classes, wherever it is stored."""
    digest = hashlib.sha256(repr(records.classes).encode())
    for image in records.images:
        digest.update(f"{image.id} {image.path.name} {image.width} {image.height}".encode("utf-8", "replace"))
        for values in (image.boxes, image.labels, image.crowd):
            digest.update(values.tobytes())
    boxes = sum(len(image.boxes) for image in records.images)
    images = counted(len(records.images), "image")
    return f"{images}, {counted(boxes, 'box', 'boxes')} ({digest.hexdigest()[:8]})"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
