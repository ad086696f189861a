"""Names of splits and folders that the layouts of several formats share."""

import re
from collections.abc import Iterable
from pathlib import Path

SPLIT_NAMES = ("train", "val", "valid", "validation", "dev", "test")
"""Names of splits, also of their folders."""
UNSPLIT = "all"
"""Name of the one split of a data set that is not split."""
DEEPEST = 3
"""Levels of folders that a search by content visits."""


def has_word(name: str, *words: str) -> bool:
    """Return True if a part of ``name`` starts with one of ``words``: ``train2017``, ``instances_train``."""
    parts = re.split(r"[^a-z0-9]+", name.lower())
    return any(part.startswith(words) for part in parts)


def is_split_name(name: str) -> bool:
    """Return True for a name that says which split it is."""
    return has_word(name, "train", "val", "dev", "test")


def split_of(path: Path, root: Path) -> str:
    """Return the split that the names of a path below ``root`` say, the last one first, else ``all``."""
    parts = path.relative_to(root).parts if path.is_relative_to(root) else path.parts[-1:]
    return next((part for part in reversed(parts) if is_split_name(part)), UNSPLIT)


def first_folder(folders: Iterable[Path]) -> Path | None:
    """Return the first of ``folders`` that exists, None if none does."""
    return next((folder for folder in folders if folder.is_dir()), None)
