"""The internal form of a data set: images with boxes and labels 0..C-1, the same for every format.

``Classes`` is the only place that maps category ids to labels and back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Protocol

import numpy as np

from fsaf.config import DataConfig
from fsaf.data.faults import Faults
from fsaf.data.table import BoxTable, clip_boxes


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Class names and category ids; label i means ``names[i]`` and ``ids[i]``."""

    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.ids)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(kw_only=True, slots=True)
class ImageRecord:
    """One image of a data set with its n boxes in pixels of the image file."""

    id: int
    path: Path
    width: int
    height: int
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    """(n, 4) float32 x1, y1, x2, y2, inside the image."""
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """(n,) int64, 0..C-1."""
    crowd: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """(n,) bool: ignore (crowd) regions; VOC's difficult objects too."""
    items: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """(n,) int64: number of each box in its annotation file, as ``Fault.item``."""
    entry: int = -1
    """Position in the list ``images`` of a COCO file; -1 in other formats."""


def is_trained_on(image: ImageRecord, data: DataConfig) -> bool:
    """Return True if training uses an image: large enough, with boxes unless ``data.keep_empty``."""
    return min(image.width, image.height) >= data.min_size and (data.keep_empty or len(image.boxes) > 0)


@dataclass(kw_only=True)
class Records:
    """A split of a data set."""

    images: list[ImageRecord]
    classes: Classes
    source: Path
    """The annotation file. VOC and YOLO: the file or folder that lists the images."""
    dropped: int = 0
    """Number of boxes left out because they have no area inside their image."""
    format: str = "coco"
    """Name of the format, for messages."""
    folder: Path = Path()
    """The folder that holds all images."""
    faults: Faults = field(default_factory=Faults)
    """Faults of the annotations."""
    table: BoxTable | None = None
    """All boxes as the annotation files give them, before clipping; None in a training run."""
    turned: bool = False
    """Boxes refer to pictures rotated by their EXIF tag, if recorded sizes do not say otherwise."""
    measured: bool = False
    """Sizes were read from the images, after rotation if ``turned``; the annotations record none."""
    notes: list[str] = field(default_factory=list)
    """Sentences on how the split was read, to print once."""
    scored_unclipped: bool = False
    """Score against ``table``: COCO's metrics are defined on the numbers of its JSON file."""


class Split(Protocol):
    """The files of a split, and how to read them. Each format has one class for this."""

    @property
    def source(self) -> Path:
        """The file or folder that messages name."""
        ...

    @property
    def missing(self) -> str | None:
        """A sentence on the place of the split if that does not exist, else None."""
        ...

    @property
    def ids_are_official(self) -> bool:
        """True if the data set numbers its classes; False if ids number the names that occur."""
        ...

    def read(self, classes: Classes | None, faults: Faults, data: DataConfig) -> Records:
        """Read the annotations.

        classes: those of a detector, which the labels then follow; None takes those of the data set.
        faults: collects what is wrong. Raises UserError, naming file and value, for a fault that is refused.
        """
        ...

    def original(self) -> dict[str, Any] | None:
        """Return the COCO JSON of the split with all of its keys; None in other formats."""
        ...


_TEXTS = {
    "box-inverted": "has negative sides",
    "box-empty": "is under a pixel high or wide",
    "box-outside": "lies outside its image",
    "box-twice": "is listed before, of the same class",
    "box-clipped": "is clipped to its image",
}


def assemble(
    images: list[ImageRecord], table: BoxTable, faults: Faults, where: Callable[[int], Path], item: str
) -> None:
    """Clip the boxes of ``table`` and give each image its own; report boxes that are dropped or clipped.

    where: returns the annotation file of an image by its position. item: the format's word for a box. The
    arrays of the images are views of one array.
    """
    at = np.asarray(table.image, np.int64)
    sizes = np.array([(image.width, image.height) for image in images], np.float64).reshape(-1, 2)
    clipped = clip_boxes(table, sizes)
    used = np.asarray(table.used, bool)
    for kind, mask in clipped.faults.items():
        for i in np.flatnonzero(mask & used).tolist():
            image, number = images[at[i]], table.item[i]
            box = ", ".join(f"{value:g}" for value in table.xywh[4 * i : 4 * i + 4])
            text = (
                f"{item} {number}: box x, y, width, height = {box} {_TEXTS[kind]} "
                f"({image.width} x {image.height}, id {image.id})"
            )
            faults.add(kind, where(int(at[i])), text, image=image.id, item=number)
    rows = np.flatnonzero(clipped.keep & used)
    rows = rows[np.argsort(at[rows], kind="stable")]
    ends = np.cumsum(np.bincount(at[rows], minlength=len(images)))
    boxes = clipped.boxes[rows]
    labels = np.asarray(table.label, np.int64)[rows]
    crowd = np.asarray(table.crowd, np.int8)[rows].astype(bool)
    items = np.asarray(table.item, np.int64)[rows]
    start = 0
    for image, end in zip(images, ends.tolist(), strict=True):
        image.boxes, image.labels = boxes[start:end], labels[start:end]
        image.crowd, image.items = crowd[start:end], items[start:end]
        start = end


def inside(name: str) -> str | None:
    """Return a relative path from an annotation file, its parts separated by ``/``; None if it leaves.

    Absolute paths, paths with a drive and paths with a part ``..`` leave, in the notation of any system.
    Symbolic links are followed: they are part of the user's folder, not of an annotation file.
    """
    if ".." not in name and not set(name) & set(":\\\0") and not name.startswith("/"):
        return name
    path = PureWindowsPath(name)
    if path.drive or path.root or ".." in path.parts or "\0" in name:
        return None
    return name.replace("\\", "/")


def to_coco(records: Records) -> dict[str, Any]:
    """Return the split as COCO JSON. Crowd regions keep ``iscrowd``; ``area`` is width times height."""
    annotations: list[dict[str, Any]] = []
    for image in records.images:
        rows = zip(image.boxes.tolist(), image.labels.tolist(), image.crowd.tolist(), strict=True)
        for (x1, y1, x2, y2), label, crowd in rows:
            xywh = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                _annotation(len(annotations), image.id, records.classes.ids[label], xywh, crowd)
            )
    return _coco(records, annotations)


def ground_truth(records: Records) -> Mapping[str, Any]:
    """Return the COCO JSON that metrics are computed on, without reading the annotations again."""
    if not records.scored_unclipped or records.table is None:
        return to_coco(records)
    table, ids = records.table, records.classes.ids
    boxes = np.asarray(table.xywh, np.float64).reshape(-1, 4).tolist()
    annotations: list[dict[str, Any]] = []
    for position, xywh, label, crowd, area in zip(
        table.image, boxes, table.label, table.crowd, table.area, strict=True
    ):
        entry = _annotation(len(annotations), records.images[position].id, ids[label], xywh, crowd)
        annotations.append(entry if np.isnan(area) else entry | {"area": area})
    return _coco(records, annotations)


def _annotation(number: int, image: int, category: int, xywh: list[float], crowd: int) -> dict[str, Any]:
    return {
        "id": number + 1,
        "image_id": image,
        "category_id": category,
        "bbox": xywh,
        "area": xywh[2] * xywh[3],
        "iscrowd": int(crowd),
    }


def _coco(records: Records, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "images": [
            {
                "id": image.id,
                "file_name": image.path.relative_to(records.folder).as_posix(),
                "width": image.width,
                "height": image.height,
            }
            for image in records.images
        ],
        "annotations": annotations,
        "categories": [
            {"id": id_, "name": name}
            for id_, name in zip(records.classes.ids, records.classes.names, strict=True)
        ],
    }
