"""YOLO: find the files of a data set and read them, a text file of boxes for each image, into records.

A line is ``class x y width height``: the number of the class, and the centre and size of the box as shares of
the image's width and height. Keypoints may follow the box (``kpt_shape`` in data.yaml); they are not used. A
line of three or more corners is a polygon, ``class x1 y1 x2 y2 x3 y3 ...``; its extent is the box. An image
without a label file has no objects. Sizes come from the image headers.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fsaf.config import DataConfig
from fsaf.data.decode import fault_kind, is_file, read_header
from fsaf.data.exif import turned_size
from fsaf.data.faults import Faults
from fsaf.data.progress import follow
from fsaf.data.readers.data_yaml import DataYaml, read_lines, resolve_listed
from fsaf.data.readers.image_files import images_below, is_hidden
from fsaf.data.records import Classes, ImageRecord, Records, assemble
from fsaf.data.table import BoxTable
from fsaf.errors import DataError, UserError

_NOT_LABELS = ("classes.txt", "labels.txt", "README.txt")
"""Text files beside labels that are none; lists of images (train.txt) are recognised by their lines."""


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
    keypoints: int = 0
    """Numbers that follow the box of a line."""
    ids_are_official: bool = True
    missing: str | None = None

    def original(self) -> None:
        """Return None: the split is not COCO JSON."""

    def read(self, classes: Classes | None, faults: Faults, data: DataConfig) -> Records:
        """Read the labels. Image ids count from 1 in the order of the paths; category ids are YOLO's.

        classes: those of a detector, matched by name; None takes all of data.yaml.
        Raises UserError, naming file and value, for a fault that is refused.
        """
        if self.missing is not None:
            raise DataError(self.missing)
        label_of = _match(self.classes, classes, self.source)
        turned = data.exif_rotation is not False
        table = BoxTable()
        images: list[ImageRecord] = []
        where: list[Path] = []
        used: set[Path] = set()
        for number, path in enumerate(follow(self._list(faults), f"reading {self.source}"), start=1):
            label = self._label_file(path)
            used.add(label)
            try:
                stored, tag = read_header(path, data.max_pixels)
            except UserError as error:
                kind = fault_kind(path, error, data.on_bad_image == "skip")
                lost = sum(map(bool, _lines_of(label))) if is_file(label) else 0
                text = str(error).removeprefix(f"{path}: ")
                text += f" (listed in {self._lists()})" if kind == "image-missing" else ""
                faults.add(kind, path, text, image=number, boxes=lost)
                continue
            height, width = turned_size(stored, tag) if turned else stored
            if tag != 1:
                text = f"tag {tag}: labels refer to the {'rotated' if turned else 'stored'} picture"
                faults.add("exif-rotated", path, text, image=number)
            images.append(ImageRecord(id=number, path=path, width=width, height=height))
            where.append(label)
            if not is_file(label):
                faults.add("label-missing", path, f"has no label file {label}", image=number)
                continue
            for line, index, xywh in _read_labels(label, width, height, self.keypoints, faults):
                if index not in self.classes.ids:
                    text = f"line {line}: class {index} is not among the {len(self.classes)} of {self.source}"
                    faults.add("unknown-category", label, text, image=number, item=line)
                elif index not in label_of:
                    text = f"line {line}: class {index}, which the detector does not have"
                    faults.add("box-other-class", label, text, image=number, item=line)
                else:
                    table.add(len(images) - 1, xywh, label_of[index], False, line)
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
            turned=turned,
            measured=True,
        )

    def _lists(self) -> str:
        """Return the lists of images, for a message."""
        return ", ".join(str(place) for place in self.images)

    def _list(self, faults: Faults) -> list[Path]:
        listed: dict[Path, None] = {}
        for place in self.images:
            for path in images_below(place) if place.is_dir() else _read_list(place, self.root, faults):
                if path in listed:
                    faults.add("image-id-twice", place, f"{path} appears twice")
                listed[path] = None
        return list(listed)

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
        folders = {self._label_file(place / "any").parent for place in self.images}
        for folder in sorted(folders | {path.parent for path in used}):
            for path in sorted(folder.glob("*.txt")):
                if path not in used and path.name not in _NOT_LABELS and not is_hidden(path.name):
                    lost = sum(map(bool, _lines_of(path)))
                    faults.add("label-without-image", path, "belongs to no image of the split", boxes=lost)


def splits_in(content: DataYaml, source: Path) -> dict[str, YoloSplit]:
    """Return the splits that a data.yaml names; those whose places do not exist are marked ``missing``."""
    classes, root, splits, missing, keypoints = content

    def split(places: tuple[Path, ...], text: str | None = None) -> YoloSplit:
        return YoloSplit(
            source=source, root=root, images=places, classes=classes, keypoints=keypoints, missing=text
        )

    return {
        **{name: split(places) for name, places in splits.items()},
        **{name: split((), text) for name, text in missing.items()},
    }


def _match(own: Classes, wanted: Classes | None, source: Path) -> dict[int, int]:
    """Return the label of each class number of the data."""
    if wanted is None or wanted == own:
        return {id_: label for label, id_ in enumerate(own.ids)}
    missing = sorted(set(wanted.names) - set(own.names))
    if missing:
        raise DataError(
            f"{source}: the detector has {len(wanted)} classes, of which {missing[0]!r:.80} is not among "
            f"the {len(own)} here. Give data with its classes"
        )
    label_of = {name: label for label, name in enumerate(wanted.names)}
    return {id_: label_of[name] for id_, name in zip(own.ids, own.names, strict=True) if name in label_of}


def _read_list(place: Path, root: Path, faults: Faults) -> Iterator[Path]:
    for number, line in enumerate(read_lines(place), start=1):
        if not line:
            continue
        path = resolve_listed(line, place, root)
        if path is None:
            faults.add("path-leaves", place, f"line {number}: {line!r:.120} leaves {root}")
        else:
            yield path


def _lines_of(file: Path) -> list[str]:
    """Return the lines of a label file; none if it is not readable."""
    try:
        return read_lines(file)
    except UserError:
        return []


def _read_labels(
    file: Path, width: int, height: int, keypoints: int, faults: Faults
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
        if keypoints and len(values) == 4 + keypoints:
            values = values[:4]
        if not all(map(math.isfinite, (index, *values))):
            faults.add("box-not-a-number", file, f"line {number}: {line!r:.80} is not finite", item=number)
        elif len(values) != 4 and (len(values) < 6 or len(values) % 2 or keypoints):
            shape = f"{keypoints} numbers of keypoints" if keypoints else "or a polygon"
            text = f"line {number}: {line!r:.80} must be a class and x, y, width, height, {shape}"
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
