"""Write the split of a data set that is not split, as two lists of images."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from fsaf.checking.survey import Survey
from fsaf.data.readers.holdout import HeldOut, names_of
from fsaf.errors import DataError, UserError
from fsaf.files import check_folder, write_text


def write_lists(out: Path, survey: Survey) -> dict[str, Path]:
    """Write ``train.txt`` and ``val.txt`` into folder ``out``, an image in each line; return the files.

    Paths start from ``Records.folder``. Raises UserError, writing nothing, if the data set has splits of its
    own, or if one of the files exists already.
    """
    if not all(isinstance(split, HeldOut) for split in survey.splits.values()):
        raise UserError(
            f"--split: {survey.root} has splits already: {', '.join(survey.splits)}; it is for data sets "
            "that are not split"
        )
    check_folder(out)
    files = {name: out / f"{name}.txt" for name in survey.read}
    for file in files.values():
        if file.exists():
            raise DataError(f"{file}: is there already; give another --split FOLDER")
    for name, records in survey.read.items():
        write_text(files[name], "".join(f"{each}\n" for each in names_of(records).values()))
    return files


def lists_command(survey: Survey, written: dict[str, Path], recipe: Sequence[str]) -> str:
    """Return the command that trains on the lists. recipe: its name, and the options that change it."""
    name, *options = recipe
    words = ["fsaf", "train", name, "--data.root", str(survey.root), *options]
    for role, file in written.items():
        words += [f"--data.{role}.annotations", str(file.absolute())]
    return shlex.join(words)
