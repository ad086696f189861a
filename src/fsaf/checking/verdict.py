"""The last line of ``fsaf check``: would training take the data, and the next command to run."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from fsaf.checking.fix import is_mended
from fsaf.checking.survey import Survey
from fsaf.data.faults import FAULT_KINDS


def verdict(survey: Survey, recipe: Sequence[str], fixed: bool = False) -> str:
    """Return one line: the command that trains, or the reasons to refuse and the command that mends them.

    recipe: its name, and the options that change it. fixed: ``--fix`` has mended what can be mended.
    """
    name, *options = recipe
    if not survey.refused:
        if survey.roles.train is None:
            return "evaluation would take this"
        words = ["fsaf", "train", name, "--data.root", str(survey.root), *options]
        known = "" if survey.files is not None else " as far as its annotations tell"
        return f"training would take this{known}: {shlex.join(words)}"
    if survey.roles.train is None:
        missing = next((split.missing for split in survey.splits.values() if split.missing), None)
        only = f"no split to train on, only {', '.join(survey.read)}"
        return f"refused: {missing or only}"
    reasons = [
        kind
        for kind, its in FAULT_KINDS.items()
        if its.rule == "refused" and any(kind in records.faults for records in survey.used.values())
    ]
    said = "1 reason" if len(reasons) == 1 else f"{len(reasons)} reasons"
    text = f"refused for {said} ({', '.join(reasons)})"
    if is_mended(survey):
        if fixed:
            return f"{text} as it is; train on what --fix has written, by the command above"
        what = {1: "it", 2: "both"}.get(len(reasons), "all")
        words = [
            "fsaf",
            "check",
            str(survey.root),
            *(["--recipe", name] if name != "lite0" else []),
            *options,
        ]
        return f"{text}; `{shlex.join([*words, '--fix', 'OUT'])}` mends {what}"
    return f"{text}; correct the annotations"


def next_command(survey: Survey, written: dict[str, Path], recipe: Sequence[str]) -> str:
    """Return the command that trains on what ``--fix`` has written, a file for each split."""
    name, *options = recipe
    words = ["fsaf", "train", name, *options]
    for role, split in (("train", survey.roles.train), ("val", survey.roles.val)):
        if split is not None:
            words += [f"--data.{role}.annotations", str(written[split].absolute())]
            words += [f"--data.{role}.images", str(survey.read[split].folder.absolute())]
    return shlex.join(words)
