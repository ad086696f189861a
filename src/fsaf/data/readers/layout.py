"""Names of splits and folders that the layouts of several formats share."""

from collections.abc import Iterable
from pathlib import Path

SPLIT_NAMES = ("train", "val", "valid", "validation", "dev", "test")
"""Names of splits, also of their folders."""


def is_split_name(name: str) -> bool:
    """Return True for a name that starts like a split's, such as ``train2017``."""
    return name.lower().startswith(("train", "val", "dev", "test"))


def first_folder(folders: Iterable[Path]) -> Path | None:
    """Return the first of ``folders`` that exists, None if none does."""
    return next((folder for folder in folders if folder.is_dir()), None)
