"""End a run before its last step: no better AP for a while (``train.patience``), or its time is up."""

from fsaf.processes import group
from fsaf.text import counted
from fsaf.training.run import Run


def note_time(run: Run, ask: bool = True) -> bool:
    """Return True, and note it in ``run``, if ``train.hours`` of training have passed.

    All processes get the same answer. ask: False in steps in which several processes must not wait.
    """
    hours = run.config.train.hours
    if hours is not None and not run.timed_out and (ask or group.processes() == 1):
        run.timed_out = group.from_main(lambda: run.seconds >= 3600 * hours)
    return run.timed_out


def why_ended(run: Run) -> str:
    """Return why a run ended before its last step; empty if it did not."""
    train = run.config.train
    if run.timed_out:
        return f"{train.hours:g} h have passed (train.hours)"
    if run.ended:
        return f"no higher AP in {counted(run.waited, 'evaluation')} (train.patience)"
    return ""
