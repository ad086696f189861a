"""List the image files of a folder: recognised by content, links followed, hidden files left out."""

import os
from collections.abc import Iterator
from pathlib import Path

from fsaf.data.decode import IMAGE_SUFFIXES, looks_like_image

_NO_IMAGES = frozenset({".txt", ".xml", ".json", ".yaml", ".yml", ".csv", ".cache", ".md", ".npy", ".zip"})
"""Suffixes of files that need not be opened to see that they are not images."""


def is_hidden(name: str) -> bool:
    """Return True for names that systems and tools hide, such as ``._a.jpg`` and ``.ipynb_checkpoints``."""
    return name.startswith(".") or name == "__MACOSX"


def is_image(path: Path) -> bool:
    """Return True if a file is an image by its name, or by its first bytes if the name does not say."""
    suffix = path.suffix.lower()
    return suffix in IMAGE_SUFFIXES or (suffix not in _NO_IMAGES and looks_like_image(path))


def images_in(folder: Path) -> Iterator[Path]:
    """Yield the images directly in a folder, sorted by name."""
    for path in sorted(folder.iterdir()):
        if not is_hidden(path.name) and path.is_file() and is_image(path):
            yield path


def images_below(folder: Path) -> Iterator[Path]:
    """Yield the images in a folder and in all folders below it, also linked ones, sorted."""
    for parent, names in walk(folder):
        for name in names:
            if is_image(parent / name):
                yield parent / name


def walk(folder: Path, depth: int | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and those below it, each with the sorted names of its files.

    Links to folders are followed, each folder is visited once, hidden names are left out.
    depth: levels below ``folder`` to visit; None visits all.
    """
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        try:
            status = Path(parent).stat()
        except OSError:
            folders.clear()
            continue
        key = (status.st_dev, status.st_ino)
        level = len(Path(parent).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        if depth is not None and level >= depth:
            folders.clear()
        if key in seen:
            folders.clear()
            continue
        seen.add(key)
        yield Path(parent), sorted(name for name in names if not is_hidden(name))
