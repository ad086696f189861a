"""The one internal form of a data set: images with boxes and labels 0..C-1, whatever format they came from.

N boxes of a split. The only place where category ids become labels is ``Classes``, which leads back as well.
"""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

import numpy as np

from fsaf.data.faults import BOXES_DROPPED, Faults

Format = Literal["coco", "voc", "yolo"]


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Class names and category ids; label i stands for ``names[i]`` and ``ids[i]``."""

    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.ids)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(kw_only=True, slots=True)
class ImageRecord:
    """One image of a data set with its boxes in pixels of the image file."""

    id: int
    path: Path
    width: int
    height: int
    boxes: np.ndarray
    """(n, 4) float32 x1, y1, x2, y2, inside the image."""
    labels: np.ndarray
    """(n,) int64, 0..C-1."""
    crowd: np.ndarray
    """(n,) bool: crowd regions, and objects that VOC marks as difficult."""
    items: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """(n,) int64: which of the annotation file's (as ``Fault.item``)."""


@dataclass(kw_only=True)
class Records:
    """A split of a data set."""

    images: list[ImageRecord]
    classes: Classes
    source: Path
    """The annotation file; of VOC and YOLO what lists the images: a file, or a folder."""
    dropped: int = 0
    """Boxes without area, or outside their image, that were left out."""
    format: Format = "coco"
    folder: Path = Path()
    """The folder that holds all images."""
    faults: Faults = field(default_factory=Faults)
    """What was wrong, as far as the annotations tell."""


@dataclass(kw_only=True)
class BoxTable:
    """The boxes of a split as they are read, in columns: no Python object is kept for a box."""

    image: "array[int]" = field(default_factory=lambda: array("q"))
    """Position in the list of images."""
    xywh: "array[float]" = field(default_factory=lambda: array("d"))
    label: "array[int]" = field(default_factory=lambda: array("q"))
    crowd: "array[int]" = field(default_factory=lambda: array("b"))
    item: "array[int]" = field(default_factory=lambda: array("q"))

    def add(self, image: int, xywh: Sequence[float], label: int, crowd: bool, item: int) -> None:
        """Append a box: left, top, width and height in pixels, not yet clipped."""
        self.image.append(image)
        self.xywh.extend(xywh)
        self.label.append(label)
        self.crowd.append(crowd)
        self.item.append(item)


def assemble(
    images: list[ImageRecord], table: BoxTable, faults: Faults, where: Callable[[int], Path], item: str
) -> None:
    """Clip the boxes of ``table`` to their images and hand them out; each one left out becomes a fault.

    A box under a pixel high or wide is left out, as MMDetection does. where: the annotation file of an image
    by its position. item: what the file calls a box. The images' arrays are views of one for all.
    """
    at = np.asarray(table.image, np.int64)
    x, y, w, h = np.asarray(table.xywh, np.float64).reshape(-1, 4).T
    sizes = np.array([(image.width, image.height) for image in images], np.float64).reshape(-1, 2)
    width, height = sizes[at].T
    with np.errstate(over="ignore", invalid="ignore"):
        # JSON holds numbers up to 1e308; the sum of two may be infinite, which clips like any other.
        xyxy = np.stack((x.clip(0), y.clip(0), np.minimum(x + w, width), np.minimum(y + h, height)), 1)
        over = np.maximum.reduce((-x, -y, x + w - width, y + h - height)) > 1
    inverted = (w < 0) | (h < 0)
    empty = ~inverted & ((w < _ONE) | (h < _ONE))
    outside = ~inverted & ~empty & ~((xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1]))
    keep = ~(inverted | empty | outside)
    # Float32 may round two sides of a sliver at the edge to one.
    with np.errstate(over="ignore"):
        boxes = xyxy.astype(np.float32)
    lost = keep & ~((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    keep, empty = keep & ~lost, empty | lost
    for kind, mask, text in (
        ("box-inverted", inverted, "has negative sides"),
        ("box-empty", empty, "is under a pixel high or wide"),
        ("box-outside", outside, "lies outside its image"),
        ("box-clipped", keep & over, "is clipped to its image"),
    ):
        for i in np.flatnonzero(mask).tolist():
            image, number = images[at[i]], table.item[i]
            box = ", ".join(f"{value:g}" for value in (x[i], y[i], w[i], h[i]))
            faults.add(
                kind,
                where(int(at[i])),
                f"{item} {number}: box x, y, width, height = {box} {text} "
                f"({image.width} x {image.height}, id {image.id})",
                image=image.id,
                item=number,
            )
    rows = np.flatnonzero(keep)
    rows = rows[np.argsort(at[rows], kind="stable")]
    ends = np.cumsum(np.bincount(at[rows], minlength=len(images)))
    boxes = boxes[rows]
    labels = np.asarray(table.label, np.int64)[rows]
    crowd = np.asarray(table.crowd, np.int8)[rows].astype(bool)
    items = np.asarray(table.item, np.int64)[rows]
    start = 0
    for image, end in zip(images, ends.tolist(), strict=True):
        image.boxes, image.labels = boxes[start:end], labels[start:end]
        image.crowd, image.items = crowd[start:end], items[start:end]
        start = end


_ONE = 1 - 1e-6  # a side of one pixel, written as a share of the image's and read back


def no_boxes(id: int, path: Path, width: int, height: int) -> ImageRecord:
    """A record that ``assemble`` will give its boxes."""
    return ImageRecord(
        id=id,
        path=path,
        width=width,
        height=height,
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        crowd=np.zeros(0, bool),
    )


def count_dropped(faults: Faults) -> int:
    """Boxes left out for having no area in their image."""
    return sum(faults.counts[kind] for kind in BOXES_DROPPED)


def inside(name: str) -> str | None:
    """A relative path that an annotation file gives, with ``/`` between its parts; None where it leaves.

    Refused are absolute paths, those with a drive, and those with a part ``..``, in either system's notation.
    Links are followed: they were laid by whoever laid out the folder, not written into a file.
    """
    if ".." not in name and not set(name) & set(":\\\0") and not name.startswith("/"):
        return name
    path = PureWindowsPath(name)
    if path.drive or path.root or ".." in path.parts or "\0" in name:
        return None
    return name.replace("\\", "/")


def to_coco(records: Records) -> dict[str, Any]:
    """The split as COCO JSON holds it. Crowd regions keep ``iscrowd``; ``area`` is width times height."""
    annotations: list[dict[str, Any]] = []
    for image in records.images:
        rows = zip(image.boxes.tolist(), image.labels.tolist(), image.crowd.tolist(), strict=True)
        for (x1, y1, x2, y2), label, crowd in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image.id,
                    "category_id": records.classes.ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(crowd),
                }
            )
    return {
        "images": [
            {"id": i.id, "file_name": _name(i.path, records.folder), "width": i.width, "height": i.height}
            for i in records.images
        ],
        "annotations": annotations,
        "categories": [
            {"id": id_, "name": name}
            for id_, name in zip(records.classes.ids, records.classes.names, strict=True)
        ],
    }


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()
