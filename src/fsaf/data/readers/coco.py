"""COCO JSON: read a file into records.

Numbers are read as tools write them: ids and sizes as decimals or text, image ids that are any text, boxes
missing beside polygons, sizes missing. Each is counted as a fault that is only warned about.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fsaf.config import DataConfig
from fsaf.data.faults import Faults
from fsaf.data.readers.coco_images import ImageList, image_key
from fsaf.data.readers.coco_json import KEYS, extent, is_int, is_number, read_json, whole
from fsaf.data.records import Classes, Records, assemble
from fsaf.data.table import BoxTable
from fsaf.errors import DataError


@dataclass(frozen=True, kw_only=True)
class CocoSplit:
    """A COCO JSON file and the folders that its images may be in."""

    annotations: Path
    images: tuple[Path, ...]
    """Folders that ``file_name`` may start from; the first that holds one of the first images is used."""
    root: Path
    """The folder of the data set; absolute paths below it are taken."""
    ids_are_official: bool = True
    missing: str | None = None

    @property
    def source(self) -> Path:
        """The JSON file."""
        return self.annotations

    def read(self, classes: Classes | None, faults: Faults, data: DataConfig) -> Records:
        """Read the file as ``read_coco`` does."""
        return read_coco(self.annotations, self.images, classes, faults, data, self.root)

    def original(self) -> dict[str, Any] | None:
        """Return all that the file holds, polygons included."""
        return dict(read_json(self.annotations, polygons=True))


def read_coco(
    annotations: Path,
    images: Path | Sequence[Path],
    classes: Classes | None = None,
    faults: Faults | None = None,
    data: DataConfig | None = None,
    root: Path | None = None,
) -> Records:
    """Read a COCO JSON file; boxes are clipped to their images.

    annotations: the JSON file. images: the folder that ``file_name`` starts from, or several to choose from.
    classes: those of a detector, which the file's categories must contain; None takes the file's. faults:
    collects what is wrong; by default refused faults raise. root: absolute paths below it are taken.
    Raises UserError, naming file and value, if the file is missing or is not COCO JSON.
    """
    faults = Faults() if faults is None else faults
    content = read_json(annotations)
    for key in KEYS:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{annotations}: not COCO JSON: needs a list {key!r} at the top")
    if any(isinstance(each, dict) and not each.get("bbox") and each.get("segmentation") == 0
           for each in content["annotations"]):  # fmt: skip
        content = read_json(annotations, polygons=True)
    if isinstance(images, Path) and not images.is_dir():
        raise DataError(
            f"{images}: no such image folder (needed by {annotations}); check data.root and images"
        )
    folders = [images] if isinstance(images, Path) else images
    reader = _Reader(annotations, faults, data or DataConfig(), folders, root)
    return reader.read(content, classes, choose=not isinstance(images, Path))


class _Reader:
    """Reads the content of one file."""

    def __init__(
        self, file: Path, faults: Faults, data: DataConfig, folders: Sequence[Path], root: Path | None
    ) -> None:
        self.file, self.faults, self.data = file, faults, data
        self.list = ImageList(file, faults, data, folders, root)
        self.notes: list[str] = []

    def read(self, content: dict[str, Any], classes: Classes | None, choose: bool) -> Records:
        own = self._categories(content["categories"])
        label_of = self._labels(own, classes)
        if choose:
            self.list.choose_folder(content["images"])
        if self.list.by_last_part:
            self.notes.append(f"images of {self.file} are found by the last part of their file_name")
        images, position = self.list.read(content["images"])
        table = self._boxes(content["annotations"], position, label_of, set(own.ids))
        content.clear()  # hundreds of megabytes
        folder, measured = self.list.folder, self.list.measured
        if any(not image.path.is_relative_to(folder) for image in images):
            folder = self.list.root  # absolute paths that lie elsewhere below it
        assemble(images, table, self.faults, lambda _: self.file, "annotation")
        return Records(
            images=images,
            classes=classes or own,
            source=self.file,
            dropped=self.faults.dropped,
            folder=folder,
            faults=self.faults,
            table=table,
            turned=measured > 0 if self.data.exif_rotation is None else self.data.exif_rotation,
            measured=bool(images) and measured == len(images),
            notes=self.notes,
            scored_unclipped=True,
        )

    def _categories(self, entries: list[Any]) -> Classes:
        if not entries:
            raise DataError(f"{self.file}: 'categories' is empty; a detector needs at least one class")
        names: dict[int, str] = {}
        for entry in entries:
            id_ = whole(entry.get("id")) if isinstance(entry, dict) else None
            if id_ is None or "name" not in entry:
                raise DataError(f"{self.file}: category {entry!r:.80}: needs an integer 'id' and a 'name'")
            if id_ in names:
                raise DataError(f"{self.file}: category id {id_} appears twice")
            if not is_int(entry["id"]):
                text = f"category id {entry['id']!r:.40}: written as decimal or text"
                self.faults.add("loose-number", self.file, text)
            names[id_] = str(entry["name"])
        ids = tuple(sorted(names))
        return Classes(names=tuple(names[id_] for id_ in ids), ids=ids)

    def _labels(self, own: Classes, wanted: Classes | None) -> dict[int, int]:
        """Return the label of each category id: by id and name, or, if ids differ, by name alone."""
        if wanted is None:
            return {id_: label for label, id_ in enumerate(own.ids)}
        name_of = dict(zip(own.ids, own.names, strict=True))
        pairs = list(zip(wanted.ids, wanted.names, strict=True))
        different = next((pair for pair in pairs if name_of.get(pair[0]) != pair[1]), None)
        if different is None:
            return {id_: label for label, id_ in enumerate(wanted.ids)}
        count = Counter(own.names)
        if all(count[name] == 1 for name in wanted.names):
            self.notes.append(f"category ids of {self.file} are not the detector's; names decide")
            id_of = {name: id_ for id_, name in name_of.items()}
            return {id_of[name]: label for label, name in enumerate(wanted.names)}
        id_, name = different
        raise DataError(
            f"{self.file}: the detector has {len(wanted)} classes, category {id_} is {name!r:.80}; "
            f"here it is {name_of.get(id_)!r:.80}, of {len(own)}. Give data with its classes"
        )

    def _boxes(
        self, entries: list[Any], position: dict[int | str, int], label_of: dict[int, int], known: set[int]
    ) -> BoxTable:
        table = BoxTable()
        ids: set[int] = set()
        lost: Counter[int] = Counter()
        for number, entry in enumerate(entries):
            image = image_key(entry.get("image_id")) if isinstance(entry, dict) else None
            category = whole(entry.get("category_id")) if isinstance(entry, dict) else None
            if image is None or category is None:
                text = f"annotation {entry!r:.120}: needs integers 'image_id' and 'category_id'"
                self.faults.add("entry", self.file, text)
                continue
            given = entry.get("id")
            item = whole(given)
            item = -1 if item is None else item
            fault = _Reporter(self.faults, self.file, given, image, item)
            if item == -1 or item in ids:
                fault("annotation-id", f"of image {image!r:.40}: the id is missing or was used before")
            elif not (
                is_int(given) and is_int(entry["category_id"]) and type(entry["image_id"]) is type(image)
            ):
                fault("loose-number", f"of image {image!r:.40}: numbers written as decimals or text")
            ids.add(item)
            box, area = _read_box(entry, fault), entry.get("area")
            if box is None:
                continue
            if image in self.list.lost:
                lost[self.list.lost[image]] += 1  # one cause is one fault: that of the image
            elif image not in position:
                fault("unknown-image", f"is of image {image!r:.40}, which is not listed")
            elif category not in known:
                text = f"has category {category}, which is not in 'categories' ({sorted(known)[:10]}...)"
                fault("unknown-category", f"{text}; add it there or remove the annotation")
            elif category not in label_of:
                fault("box-other-class", f"is of category {category}, which the detector does not have")
            else:
                ignored = _flag(entry.get("ignore"))
                if ignored:
                    fault("box-ignored", "is marked 'ignore'")
                table.add(
                    position[image],
                    box,
                    label_of[category],
                    _flag(entry.get("iscrowd")),
                    item,
                    entry=number,
                    area=math.nan if area is None else area,
                    used=not ignored,
                )
        for id_, boxes in lost.items():
            self.faults.note_boxes(id_, boxes)
        return table


class _Reporter(NamedTuple):
    """Adds faults of one annotation."""

    faults: Faults
    file: Path
    id: object
    image: int | str
    item: int

    def __call__(self, kind: str, text: str) -> None:
        image = self.image if isinstance(self.image, int) else None
        self.faults.add(kind, self.file, f"annotation {self.id!r:.40} {text}", image=image, item=self.item)


def _flag(value: object) -> bool:
    """Return a flag, which may be written as text."""
    return bool(value) and whole(value) != 0 and value != "false"


def _read_box(entry: dict[str, Any], fault: _Reporter) -> list[float] | None:
    """Return x, y, width and height of an annotation; None, with a fault, if it has no box."""
    box, area = entry.get("bbox"), entry.get("area")
    if not box and (polygon := extent(entry.get("segmentation"))) is not None:
        box = polygon
        fault("box-from-polygon", "has no bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        fault("box-not-a-number", f"has bbox {box!r:.80}, not four finite numbers: x, y, width, height")
    elif area is not None and not is_number(area):
        fault("entry", f"has area {area!r:.80}, not a number")
    else:
        return box
    return None
