"""YOLO: a text file of boxes for each image, ``data.yaml`` with the class names, read into records.

A line is ``class x y width height``: the class' number and the box's centre and size as shares of the image's
width and height. A line of more corners is a polygon, ``class x1 y1 x2 y2 x3 y3 ...``; its extent is the box.
An image without a label file holds no object. Sizes come from the headers of the images.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fsaf.config import DataConfig
from fsaf.data.decode import IMAGE_SUFFIXES, ImageTooLarge, header_size, is_file
from fsaf.data.faults import Faults
from fsaf.data.progress import follow
from fsaf.data.records import (
    BoxTable,
    Classes,
    ImageRecord,
    Records,
    assemble,
    count_dropped,
    inside,
    no_boxes,
)
from fsaf.errors import UserError

NAMES_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


@dataclass(frozen=True, kw_only=True)
class YoloSplit:
    """Where a split lies."""

    source: Path
    """What names the split: data.yaml, or a folder of labels."""
    root: Path
    """The folder that holds everything; of a path below it the part ``images`` becomes ``labels``."""
    images: tuple[Path, ...]
    """Folders of images, or text files with the path of an image a line."""
    classes: Classes
    labels: Path | None = None
    """The folder of labels, where it is not found by that rule."""

    def read(self, classes: Classes | None, faults: Faults, data: DataConfig) -> Records:
        """Read the split's labels. Image ids count from 1 in the order of the paths; category ids are YOLO's.

        classes: those of a checkpoint, matched by name; else all of data.yaml.
        Raises UserError, naming file and value, for what the rules of ``faults`` refuse.
        """
        label_of = _match(self.classes, classes, self.source)
        table = BoxTable()
        images: list[ImageRecord] = []
        where: list[Path] = []
        listed: dict[Path, None] = {}
        for place in self.images:
            for path in _list_images(place, self.root, faults):
                if path in listed:
                    faults.add("image-id-twice", place, f"{path} appears twice")
                listed[path] = None
        used: set[Path] = set()
        for path in follow(list(listed), f"reading {self.source}"):
            try:
                height, width = header_size(path, data.max_pixels, data.exif_rotation)
            except UserError as error:
                kind = "image-unreadable" if is_file(path) else "image-missing"
                kind = "image-too-large" if isinstance(error, ImageTooLarge) else kind
                faults.add(kind, path, str(error).removeprefix(f"{path}: "), image=len(images) + 1)
                continue
            label = self._label_file(path)
            used.add(label)
            images.append(no_boxes(len(images) + 1, path, width, height))
            where.append(label)
            if not is_file(label):
                faults.add("label-missing", path, f"has no label file {label}", image=images[-1].id)
                continue
            for number, index, xywh in _read_labels(label, width, height, faults):
                if index not in self.classes.ids:
                    text = (
                        f"line {number}: class {index} is not among the {len(self.classes)} of {self.source}"
                    )
                    faults.add("unknown-category", label, text, image=images[-1].id, item=number)
                elif index not in label_of:
                    text = f"line {number}: class {index}, which the detector does not have"
                    faults.add("box-other-class", label, text, image=images[-1].id, item=number)
                else:
                    table.add(len(images) - 1, xywh, label_of[index], False, number)
        self._report_orphans(used, faults)
        assemble(images, table, faults, where.__getitem__, "line")
        return Records(
            images=images,
            classes=classes or self.classes,
            source=self.source,
            dropped=count_dropped(faults),
            format="yolo",
            folder=self.root,
            faults=faults,
        )

    def _label_file(self, image: Path) -> Path:
        name = f"{image.stem}.txt"
        if self.labels is not None:
            return self.labels / image.relative_to(self.images[0]).with_name(name)
        parts = list(image.relative_to(self.root).parts[:-1])
        if "images" in parts:
            parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
            folder = self.root.joinpath(*parts)
            if folder.is_dir():
                return folder / name
        return image.with_name(name)

    def _report_orphans(self, used: set[Path], faults: Faults) -> None:
        """Label files that belong to no image; a list of images may leave some out on purpose."""
        if any(place.suffix == ".txt" for place in self.images):
            return
        for folder in sorted({self.labels} if self.labels else {path.parent for path in used}):
            for path in sorted(folder.glob("*.txt")):
                if path not in used and path.name not in ("classes.txt", "labels.txt"):
                    faults.add("label-without-image", path, "belongs to no image of the split")


def read_data_yaml(path: Path) -> dict[str, YoloSplit]:
    """The splits ``train``, ``val`` and ``test`` that data.yaml names.

    Their paths start from ``path:`` where that is a folder in data.yaml's own, else from there. Leading
    ``../`` are dropped where the rest is there (some tools write them); otherwise what leaves that folder is
    refused. Raises UserError, naming file and value.
    """
    data = _load_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: not YOLO's data.yaml: needs keys 'names' and 'train'")
    classes = _read_names(data, path)
    root = path.parent
    given = data.get("path")
    if isinstance(given, str) and (below := inside(given)) and (root / below).is_dir():
        root = root / below
    splits = {}
    for key in ("train", "val", "valid", "test"):
        value = data.get(key)
        if not value:
            continue
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) for each in values):
            raise UserError(f"{path}: {key}: must be a path or a list of paths")
        places = tuple(_find_place(each, root, path, key) for each in values)
        name = "val" if key == "valid" else key
        splits[name] = YoloSplit(source=path, root=root, images=places, classes=classes)
    return splits


def find_classes(folder: Path) -> Classes:
    """The class names for a folder of labels: of data.yaml or classes.txt in it or up to two folders above.

    Raises UserError where there are none.
    """
    for place in (folder, *list(folder.absolute().parents)[:2]):
        for name in NAMES_FILES:
            if (place / name).is_file():
                return _read_names(_load_yaml(place / name), place / name)
        if (place / "classes.txt").is_file():
            return _read_names({"names": _lines(place / "classes.txt")}, place / "classes.txt")
    raise UserError(
        f"{folder}: no class names; put data.yaml with 'names', or classes.txt, beside the labels"
    )


def _load_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except Exception as error:  # the parser also raises ValueError, TypeError, RecursionError, ...
        raise UserError(f"{path}: not readable as YAML ({' '.join(str(error).split())[:200]})") from error


def _read_names(data: Any, path: Path) -> Classes:
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise UserError(f"{path}: needs 'names', a list of class names or a number and a name each")
    for index, name in names.items():
        # No value of theirs in the message: YAML's references make huge ones out of a few lines.
        if type(index) is not int or not 0 <= index < 2**31 or not isinstance(name, (str, int, float)):
            raise UserError(f"{path}: names: must be a name for each number from 0")
    count = data.get("nc")
    if type(count) is int and count != len(names):
        raise UserError(f"{path}: nc is {count}, but there are {len(names)} names")
    ids = sorted(names)
    return Classes(names=tuple(str(names[index]) for index in ids), ids=tuple(ids))


def _match(own: Classes, wanted: Classes | None, source: Path) -> dict[int, int]:
    """The label of each of the data's class numbers."""
    if wanted is None or wanted == own:
        return {id_: label for label, id_ in enumerate(own.ids)}
    missing = sorted(set(wanted.names) - set(own.names))
    if missing:
        raise UserError(
            f"{source}: the detector has {len(wanted)} classes, of which {missing[0]!r:.80} is not among "
            f"the {len(own)} here. Give data with its classes"
        )
    label_of = {name: label for label, name in enumerate(wanted.names)}
    return {id_: label_of[name] for id_, name in zip(own.ids, own.names, strict=True) if name in label_of}


def _find_place(value: str, root: Path, path: Path, key: str) -> Path:
    """The folder or list of images that data.yaml names."""
    if Path(value).is_absolute() and Path(value).is_relative_to(root.absolute()):
        value = str(Path(value).relative_to(root.absolute()))
    name = value.replace("\\", "/")
    while name.startswith("../"):
        name = name[3:]
    relative = inside(name)
    if relative is None:
        raise UserError(f"{path}: {key}: {value!r:.120} leaves {root}; write it relative to that folder")
    place = root / relative
    if not (place.is_dir() or (place.suffix == ".txt" and place.is_file())):
        raise UserError(f"{path}: {key}: {value!r:.120} is neither a folder nor a .txt list in {root}")
    return place


def _list_images(place: Path, root: Path, faults: Faults) -> Iterator[Path]:
    if place.is_dir():
        for folder, folders, names in os.walk(place):
            folders.sort()
            for name in sorted(names):
                if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                    yield Path(folder, name)
        return
    for number, line in enumerate(_lines(place), start=1):
        start = place.parent if line.startswith("./") else root
        relative = inside(line)
        if relative is None:
            faults.add("path-leaves", place, f"line {number}: {line!r:.120} leaves {root}")
        elif line:
            yield start / relative


def _read_labels(
    file: Path, width: int, height: int, faults: Faults
) -> Iterator[tuple[int, int, tuple[float, float, float, float]]]:
    """Number of the line, class, and left, top, width, height in pixels of each box."""
    try:
        lines = _lines(file)
    except UserError as error:
        faults.add("entry", file, str(error).removeprefix(f"{file}: "))
        return
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            index, *values = map(float, line.split())
        except ValueError:
            faults.add("entry", file, f"line {number}: {line!r:.80} is not numbers alone", item=number)
            continue
        if not all(map(math.isfinite, (index, *values))):
            faults.add("box-not-a-number", file, f"line {number}: {line!r:.80} is not finite", item=number)
        elif len(values) != 4 and (len(values) < 6 or len(values) % 2):
            text = f"line {number}: {line!r:.80} must be a class and x, y, width, height, or a polygon"
            faults.add("entry", file, text, item=number)
        elif index != int(index) or not 0 <= index < 2**31:
            text = f"line {number}: class {line.split()[0]!r:.40} is no whole number from 0"
            faults.add("entry", file, text, item=number)
        elif max(map(abs, values)) > 2:
            text = f"line {number}: {line!r:.80} must be shares of the image's width and height, 0 to 1"
            faults.add("entry", file, text, item=number)
        elif len(values) == 4:
            x, y, w, h = values
            yield number, int(index), ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
        else:
            xs, ys = values[::2], values[1::2]
            left, top = min(xs) * width, min(ys) * height
            yield number, int(index), (left, top, max(xs) * width - left, max(ys) * height - top)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as text ({error})") from error
