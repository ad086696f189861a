"""YOLO: find the files of a data set and read them, a text file of boxes for each image, into records.

A line is ``class x y width height``: the number of the class, and the centre and size of the box as shares of
the image's width and height. A line of three or more corners is a polygon, ``class x1 y1 x2 y2 x3 y3 ...``;
its extent is the box. An image without a label file has no objects. Sizes come from the image headers.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fsaf.config import DataConfig
from fsaf.data.decode import IMAGE_SUFFIXES, ImageTooLarge, header_size, is_file
from fsaf.data.faults import Faults
from fsaf.data.progress import follow
from fsaf.data.readers.data_yaml import NAMES_FILES, find_classes, read_data_yaml, read_lines
from fsaf.data.readers.layout import SPLIT_NAMES, first_folder
from fsaf.data.records import Classes, ImageRecord, Records, Split, assemble, inside
from fsaf.data.table import BoxTable
from fsaf.errors import UserError

NAME = "YOLO"
LAYOUT = "data.yaml or images/ with labels/ (YOLO)"
"""Files to look for, for the message if there are none."""


@dataclass(frozen=True, kw_only=True)
class YoloSplit:
    """Folders or lists of images, and the class names of their labels."""

    source: Path
    """data.yaml, or the folder of labels."""
    root: Path
    """The folder that holds everything; below it the part ``images`` of a path becomes ``labels``."""
    images: tuple[Path, ...]
    """Folders of images, or text files with the path of an image in each line."""
    classes: Classes
    labels: Path | None = None
    """The folder of labels, if that rule does not find it."""
    ids_are_official: bool = True

    def original(self) -> None:
        """Return None: the split is not COCO JSON."""

    def read(self, classes: Classes | None, faults: Faults, data: DataConfig) -> Records:
        """Read the labels. Image ids count from 1 in the order of the paths; category ids are YOLO's.

        classes: those of a detector, matched by name; None takes all of data.yaml.
        Raises UserError, naming file and value, for a fault that is refused.
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
            images.append(ImageRecord(id=len(images) + 1, path=path, width=width, height=height))
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
            dropped=faults.dropped,
            format="yolo",
            folder=self.root,
            faults=faults,
            table=table,
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
        """Report label files without an image; skip this for lists of images, which may leave some out."""
        if any(place.suffix == ".txt" for place in self.images):
            return
        for folder in sorted({self.labels} if self.labels else {path.parent for path in used}):
            for path in sorted(folder.glob("*.txt")):
                if path not in used and path.name not in ("classes.txt", "labels.txt"):
                    faults.add("label-without-image", path, "belongs to no image of the split")


def find(data: Path) -> dict[str, Split]:
    """Return the splits of a data.yaml, or of a folder in YOLO's layouts, by name."""
    if data.is_file():
        return _splits_of(data) if data.suffix in (".yaml", ".yml") else {}
    for name in NAMES_FILES:
        if (data / name).is_file():
            return _splits_of(data / name)
    splits: dict[str, Split] = {}
    for name in SPLIT_NAMES:
        for labels, images in ((f"labels/{name}", f"images/{name}"), (f"{name}/labels", f"{name}/images")):
            if (data / labels).is_dir() and (data / images).is_dir():
                splits[name] = _labels(data / labels, data / images)
    if not splits and (data / "labels").is_dir() and (data / "images").is_dir():
        splits["all"] = _labels(data / "labels", data / "images")
    return splits


def at(annotations: Path, images: Path | None, role: str) -> Split | None:
    """Return the split of a folder of labels, or ``role`` of a data.yaml, that a config names, else None."""
    if annotations.is_dir() and any(annotations.glob("*.txt")):
        return _labels(annotations, images or _swap(annotations, "labels", "images"))
    if annotations.suffix not in (".yaml", ".yml"):
        return None
    splits = _splits_of(annotations)
    if role not in splits:
        raise UserError(f"{annotations}: names no split {role!r}; it has: {', '.join(splits) or 'none'}")
    return splits[role]


def _splits_of(path: Path) -> dict[str, Split]:
    """Return the splits that a data.yaml names."""
    classes, root, splits = read_data_yaml(path)
    return {
        name: YoloSplit(source=path, root=root, images=places, classes=classes)
        for name, places in splits.items()
    }


def _labels(labels: Path, images: Path) -> YoloSplit:
    return YoloSplit(
        source=labels, root=images, images=(images,), classes=find_classes(labels), labels=labels
    )


def _swap(folder: Path, old: str, new: str) -> Path:
    """Return ``folder`` with its last part ``old`` made ``new`` if that is a folder, else ``folder``."""
    parts = list(folder.parts)
    if old in parts:
        parts[len(parts) - 1 - parts[::-1].index(old)] = new
    return first_folder([Path(*parts)]) or folder


def _match(own: Classes, wanted: Classes | None, source: Path) -> dict[int, int]:
    """Return the label of each class number of the data."""
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


def _list_images(place: Path, root: Path, faults: Faults) -> Iterator[Path]:
    if place.is_dir():
        for folder, folders, names in os.walk(place):
            folders.sort()
            for name in sorted(names):
                if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                    yield Path(folder, name)
        return
    for number, line in enumerate(read_lines(place), start=1):
        start = place.parent if line.startswith("./") else root
        relative = inside(line)
        if relative is None:
            faults.add("path-leaves", place, f"line {number}: {line!r:.120} leaves {root}")
        elif line:
            yield start / relative


def _read_labels(
    file: Path, width: int, height: int, faults: Faults
) -> Iterator[tuple[int, int, tuple[float, float, float, float]]]:
    """Yield the number of the line, the class, and left, top, width, height in pixels of each box."""
    try:
        lines = read_lines(file)
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
