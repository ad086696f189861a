"""Take boxes and polygons of images from the recorded picture to the stored one: scaled, or turned back."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fsaf.checking.images import ImageFile
from fsaf.data.exif import same_ratio, turn_back
from fsaf.data.readers.coco_json import extent
from fsaf.data.records import Records
from fsaf.data.table import BoxTable
from fsaf.errors import DataError


class Move(NamedTuple):
    """Transform of an image's boxes from the recorded picture to the stored one."""

    scale: tuple[float, float]
    """Factors of x and y."""
    tag: int
    """EXIF tag to turn back after scaling, 1 for none."""
    stored: tuple[int, int]
    """Height and width of the stored picture."""

    def __call__(self, xywh: np.ndarray) -> np.ndarray:
        """Return boxes (n, 4) x, y, width, height in pixels of the stored picture."""
        return turn_back(xywh * np.array([*self.scale, *self.scale]), self.tag, self.stored)

    def polygons(self, shapes: Any) -> Any:
        """Return polygons in pixels of the stored picture; None for other masks."""
        if extent(shapes) is None:
            return None
        moved = []
        for shape in shapes if isinstance(shapes[0], list) else [shapes]:
            points = np.array(shape, np.float64).reshape(-1, 2)
            boxes = self(np.concatenate([points, np.zeros_like(points)], 1))
            moved.append(boxes[:, :2].reshape(-1).tolist())
        return moved


def moves_of(records: Records, files: list[ImageFile], gone: set[int | None]) -> dict[int, Move]:
    """Return the images whose boxes have to be moved, by position.

    Raises UserError if nothing explains the size of an image.
    """
    moves: dict[int, Move] = {}
    for position, (image, file) in enumerate(zip(records.images, files, strict=True)):
        size, recorded = file.size, (image.height, image.width)
        if file.stored is None or size is None or image.id in gone:
            continue
        same = _is_near(size, recorded)
        if file.turned and _is_near(file.stored, recorded):  # the config says so, against the sizes
            same = True
        if not same and not same_ratio(size, recorded):
            raise DataError(
                f"{image.path}: {size[1]} x {size[0]} pixels, but {recorded[1]} x {recorded[0]} in "
                f"{records.source} (id {image.id}), which no scale and no EXIF tag explains, so its boxes "
                "may be anywhere; correct its annotations or remove the image, then run --fix again"
            )
        if not same or file.turned:
            scale = (1.0, 1.0) if same else (size[1] / recorded[1], size[0] / recorded[0])
            moves[position] = Move(scale, file.tag if file.turned else 1, file.stored)
    return moves


def _is_near(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return max(abs(one[0] - other[0]), abs(one[1] - other[1])) <= 1


def in_stored_pixels(table: BoxTable, moves: Mapping[int, Move]) -> BoxTable:
    """Return the table with the boxes of moved images in pixels of the stored pictures."""
    if not moves:
        return table
    boxes = np.asarray(table.xywh, np.float64).reshape(-1, 4).copy()
    at = np.asarray(table.image, np.int64)
    order = np.argsort(at, kind="stable")
    for position, move in moves.items():
        rows = order[slice(*np.searchsorted(at[order], [position, position + 1]))]
        boxes[rows] = move(boxes[rows])
    return table.with_boxes(boxes)


def move_entry(entry: dict[str, Any], move: Move) -> dict[str, Any]:
    """Return an annotation with area and polygons moved; masks and keypoints that cannot be moved go."""
    moved = {key: value for key, value in entry.items() if key not in ("keypoints", "num_keypoints")}
    if entry.get("area") is not None:
        moved["area"] = entry["area"] * move.scale[0] * move.scale[1]
    if moved.pop("segmentation", None) is not None:
        polygons = move.polygons(entry["segmentation"])
        moved |= {} if polygons is None else {"segmentation": polygons}
    return moved
