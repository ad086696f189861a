"""A run folder that is moved or deleted while training."""

from pathlib import Path

import yaml

from fsaf.config import to_dict
from fsaf.errors import WriteError
from fsaf.files import write_text
from fsaf.processes import group
from fsaf.training.log import NoLog, RunLog
from fsaf.training.run import Run


def follow(run: Run, log: RunLog | NoLog) -> None:
    """Continue in the run folder if it was moved; call it before anything is written there.

    If it was deleted, write the state of the run into a new folder beside it, and raise WriteError that names
    both. To be called by all processes.
    """
    lock = run.lock
    place = group.from_main(lock.place) if lock else run.out
    if place == run.out:
        return
    before = run.out
    if place is None:
        run.out = group.from_main(lambda: _beside(before))
        run.good = None
        if group.is_main():
            write_text(run.out / "config.yaml", yaml.safe_dump(to_dict(run.config), sort_keys=False))
        run.save()
        raise WriteError(
            f"{before}: was deleted, or moved to another disk, while training; the state after step "
            f"{run.step} is in {run.out}; {run.how_to_resume}"
        )
    log.say(f"warning: {before} was moved; training continues in {place}")
    if run.good and run.good.is_relative_to(before):
        run.good = place / run.good.relative_to(before)
    run.out = place
    if lock:
        lock.folder = place


def _beside(folder: Path) -> Path:
    """Return a path beside ``folder`` that does not exist."""
    number = 1
    while (path := folder.with_name(f"{folder.name}-rescued{number if number > 1 else ''}")).exists():
        number += 1
    return path
