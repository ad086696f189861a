"""Find the splits of a data set, whatever its format."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from fsaf.data.readers import coco_layout, voc_layout, yolo_layout
from fsaf.data.readers.image_files import walk
from fsaf.data.readers.layout import DEEPEST, UNSPLIT, has_word
from fsaf.data.records import Split
from fsaf.errors import DataError, UserError


class Reader(Protocol):
    """A format: a module of this folder."""

    NAME: str
    LAYOUT: str

    def find(self, data: Path) -> dict[str, Split]:
        """Return the splits of a file, or of a folder in a usual layout, by name; none if it holds none."""

    def search(self, data: Path) -> dict[Path, tuple[str, Split]]:
        """Return the names and splits of all data of this format below a folder, recognised by content."""

    def at(self, annotations: Path, images: Path | None, role: str) -> Split | None:
        """Return the split of a file or folder that a config names; None if it is not of this format."""


READERS: tuple[Reader, ...] = (coco_layout, voc_layout, yolo_layout)

_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tar\.\w+|7z|rar|gz)$", re.IGNORECASE)


def find_splits(data: Path) -> dict[str, Split]:
    """Return the splits of a data set by name.

    data: a folder; or one COCO JSON file, data.yaml, obj.data, file of ImageSets/Main, folder of XML files or
    of YOLO labels. A folder is looked at in this order: the usual layouts (docs/your-data.md); the same, one
    and two folders down; files recognised by their content. Raises UserError if it holds no data, or several
    data sets.
    """
    if not data.exists():
        raise DataError(f"{data}: no such file or folder; give a COCO JSON file, or a folder of a data set")
    if _ARCHIVE.search(data.name) and data.is_file():
        raise DataError(f"{data}: is an archive; unpack it and give the folder")
    if splits := _usual(data):
        return splits
    if data.is_file():
        return {UNSPLIT: _at(data)}
    broken: list[UserError] = []
    for depth in (1, 2):
        below: dict[Path, dict[str, Split]] = {}
        for folder in _folders(data, depth):
            try:
                below[folder] = _usual(folder)
            except UserError as error:
                broken.append(error)
        below = {folder: splits for folder, splits in below.items() if splits}
        if len(below) > 1:
            raise _several(data, list(map(str, below)))
        if below:
            return next(iter(below.values()))
    return _by_content(data, broken)


def _usual(data: Path) -> dict[str, Split]:
    found = {reader.NAME: splits for reader in READERS if (splits := reader.find(data))}
    if len(found) > 1:
        raise DataError(
            f"{data}: holds data of {' and '.join(found)}; give the one meant itself: its JSON file, folder "
            "of XML files, or data.yaml (in training as --data.train.annotations)"
        )
    return next(iter(found.values()), {})


def _folders(data: Path, depth: int) -> list[Path]:
    return [folder for folder, _ in walk(data, depth) if len(folder.relative_to(data).parts) == depth]


def _by_content(data: Path, broken: list[UserError]) -> dict[str, Split]:
    """Return the splits of files recognised by content. broken: errors to raise if there are none."""
    found = {reader.NAME: places for reader in READERS if (places := reader.search(data))}
    if len(found) > 1:
        raise _several(data, [f"{min(places)} ({name})" for name, places in found.items()])
    splits: dict[str, Split] = {}
    for places in found.values():
        for name, split in places.values():
            if name in splits:
                raise _several(data, list(map(str, places)))
            splits[name] = split
    if splits:
        return splits
    if broken:
        raise broken[0]
    looked = ", no ".join(reader.LAYOUT for reader in READERS)
    archive = next((path for path in sorted(data.iterdir()) if _ARCHIVE.search(path.name)), None)
    hint = f"; unpack {archive.name}" if archive else ""
    raise DataError(
        f"{data}: no data set found: no {looked} in it, {DEEPEST} folders deep{hint}; "
        "layouts: docs/your-data.md"
    )


def _several(data: Path, places: list[str]) -> DataError:
    shown = ", ".join(places[:4]) + (f" and {len(places) - 4} more" if len(places) > 4 else "")
    return DataError(
        f"{data}: holds several data sets: {shown}; give the one meant (in training as --data.root, or as "
        "--data.train.annotations)"
    )


def choose_split(splits: Mapping[str, Split], role: str, data: Path) -> tuple[str, Split] | None:
    """Return the split to train on (role ``train``) or to evaluate on (``val``: else a test split), or None.

    Splits that are named but missing are not chosen. Raises UserError if several could be meant.
    """
    there = [name for name, split in splits.items() if split.missing is None]
    for word in ("train",) if role == "train" else ("val", "dev", "test"):
        names = [name for name in there if has_word(name, word)]
        if word == "train" and len(names) > 1:
            names = [name for name in names if not has_word(name, "trainval")]
        names = [name for name in names if name == word] or names
        if len(names) > 1:
            raise DataError(
                f"{data}: any of the splits {', '.join(names)} could be meant; give "
                f"--data.{role}.annotations and --data.{role}.images"
            )
        if names:
            return names[0], splits[names[0]]
    return None


def is_unsplit(splits: Mapping[str, Split]) -> bool:
    """Return True if the data set is one split, whose name does not say what it is for."""
    return len(splits) == 1 and not any(has_word(name, "train", "val", "dev", "test") for name in splits)


def given_split(annotations: Path, images: Path | None, role: str) -> Split:
    """Return the split of an annotation file or folder that a config names.

    annotations: a COCO JSON file; a folder of XML files or a file of ImageSets/Main; data.yaml (its split
    ``role``) or a folder of labels. images: the folder of the images; None looks for it.
    Raises UserError if it is none of these.
    """
    if not annotations.exists():
        raise DataError(
            f"{annotations}: no such file; check --data.root and --data.{role}.annotations "
            f"(null, and --data.{role}.images null, to have the split found in data.root)"
        )
    if images is not None and not images.is_dir():
        raise DataError(
            f"{images}: no such image folder (needed by {annotations}); check data.root and images"
        )
    return _at(annotations, images, role)


def _at(annotations: Path, images: Path | None = None, role: str = UNSPLIT) -> Split:
    for reader in READERS:
        split = reader.at(annotations, images, role)
        if split is not None:
            return split
    raise DataError(f"{annotations}: holds neither XML files (Pascal VOC) nor .txt labels (YOLO)")
