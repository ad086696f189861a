"""The boxes of a split while they are read: columns of numbers, clipped to their images in one go.

N boxes of a split.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

_ONE = 1 - 1e-6  # tolerance: a side of one pixel, written as a share of the image's side and read back


@dataclass(kw_only=True)
class BoxTable:
    """Boxes of a split in columns, as the annotation files give them; no Python object for each box."""

    image: "array[int]" = field(default_factory=lambda: array("q"))
    """Position in the list of images."""
    xywh: "array[float]" = field(default_factory=lambda: array("d"))
    """Left, top, width and height in pixels, four numbers for each box."""
    label: "array[int]" = field(default_factory=lambda: array("q"))
    crowd: "array[int]" = field(default_factory=lambda: array("b"))
    item: "array[int]" = field(default_factory=lambda: array("q"))
    """Number of the box in its annotation file, as ``Fault.item``."""
    entry: "array[int]" = field(default_factory=lambda: array("q"))
    """Position in the list ``annotations`` of a COCO file; -1 in other formats."""
    area: "array[float]" = field(default_factory=lambda: array("d"))
    """Area in the file; NaN if it has none."""
    used: "array[int]" = field(default_factory=lambda: array("b"))
    """0 for a box that is read but not trained on (COCO's ``ignore``)."""

    def __len__(self) -> int:
        return len(self.image)

    def add(
        self,
        image: int,
        xywh: Sequence[float],
        label: int,
        crowd: bool,
        item: int,
        *,
        entry: int = -1,
        area: float = np.nan,
        used: bool = True,
    ) -> None:
        """Append a box."""
        self.image.append(image)
        self.xywh.extend(xywh)
        self.label.append(label)
        self.crowd.append(crowd)
        self.item.append(item)
        self.entry.append(entry)
        self.area.append(area)
        self.used.append(used)

    def pick(self, images: Sequence[int]) -> "BoxTable":
        """Return the boxes of the images at positions ``images``, which become 0, 1, 2, ..."""
        new = {old: i for i, old in enumerate(images)}
        rows = [i for i, position in enumerate(self.image) if position in new]
        boxes = np.asarray(self.xywh, np.float64).reshape(-1, 4)[rows]
        part = BoxTable(image=array("q", [new[self.image[i]] for i in rows])).with_boxes(boxes)
        for name in ("label", "crowd", "item", "entry", "area", "used"):
            column = getattr(self, name)
            setattr(part, name, array(column.typecode, [column[i] for i in rows]))
        return part

    def with_boxes(self, xywh: np.ndarray) -> "BoxTable":
        """Return the same table with other boxes, (N, 4) x, y, width, height."""
        return replace(self, xywh=array("d", xywh.reshape(-1).tolist()))


@dataclass(kw_only=True)
class Clipped:
    """The boxes of a table, clipped to their images."""

    boxes: np.ndarray
    """(N, 4) float32 x1, y1, x2, y2; meaningful where ``keep``."""
    keep: np.ndarray
    """(N,) bool: the box has an area inside its image, and is not there already."""
    faults: dict[str, np.ndarray]
    """(N,) bool for each kind of fault."""


def clip_boxes(table: BoxTable, sizes: np.ndarray) -> Clipped:
    """Clip all boxes of a table to their images.

    sizes: width and height of each image, (I, 2). A box under a pixel high or wide is dropped, as MMDetection
    does.
    """
    at = np.asarray(table.image, np.int64)
    x, y, w, h = np.asarray(table.xywh, np.float64).reshape(-1, 4).T
    width, height = np.asarray(sizes, np.float64).reshape(-1, 2)[at].T
    with np.errstate(over="ignore", invalid="ignore"):
        # JSON holds numbers up to 1e308; a sum may be infinite, which clips like any other number.
        xyxy = np.stack((x.clip(0), y.clip(0), np.minimum(x + w, width), np.minimum(y + h, height)), 1)
        over = np.maximum.reduce((-x, -y, x + w - width, y + h - height)) > 1
        boxes = xyxy.astype(np.float32)
    inverted = (w < 0) | (h < 0)
    empty = ~inverted & ((w < _ONE) | (h < _ONE))
    outside = ~inverted & ~empty & ~((xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1]))
    keep = ~(inverted | empty | outside)
    # Float32 may round both sides of a sliver at the edge to the same number.
    sliver = keep & ~((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    keep &= ~sliver
    twice = _repeated(at, boxes, np.asarray(table.label, np.int64), np.asarray(table.crowd, np.int64), keep)
    keep &= ~twice
    faults = {
        "box-inverted": inverted,
        "box-empty": empty | sliver,
        "box-outside": outside,
        "box-twice": twice,
        "box-clipped": keep & over,
    }
    return Clipped(boxes=boxes, keep=keep, faults=faults)


def _repeated(
    at: np.ndarray, boxes: np.ndarray, labels: np.ndarray, crowd: np.ndarray, keep: np.ndarray
) -> np.ndarray:
    """Return (N,) bool: an earlier box of the same image has the same corners, label and crowd flag."""
    rows = np.flatnonzero(keep)
    columns = (at, labels, crowd, *(boxes + np.float32(0)).view(np.int32).astype(np.int64).T)
    mixed = np.zeros(len(rows), np.uint64)
    for column in columns:  # a hash of each box, to sort once
        mixed = (mixed ^ column[rows].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    same = mixed[order][1:] == mixed[order][:-1]
    for column in columns:  # hashes may collide
        values = column[rows][order]
        same &= values[1:] == values[:-1]
    repeated = np.zeros(len(at), bool)
    repeated[rows[order[1:][same]]] = True
    return repeated
