"""Annotation files in one internal form: images with boxes and labels 0..C-1.

The only place where category ids become labels; ``Classes`` leads back.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fsaf.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Class names and category ids; label i stands for ``names[i]`` and ``ids[i]``."""

    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.names) == len(self.ids)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(kw_only=True)
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
    """(n,) bool: crowd regions."""


@dataclass(kw_only=True)
class Records:
    """A split of a data set."""

    images: list[ImageRecord]
    classes: Classes
    source: Path
    """The annotation file."""
    dropped: int = 0
    """Boxes without area, or outside their image, that were left out."""


def read_coco(annotations: Path, images: Path, classes: Classes | None = None) -> Records:
    """Read a COCO JSON file.

    annotations: the JSON file. images: the folder that ``file_name`` starts from. classes: those of a
    checkpoint, which the file's categories must contain with the same ids and names; else the file's own.
    Boxes are clipped to their image; those of no area left are counted in ``dropped``.
    Raises UserError, naming file and value, where the file is missing or is not COCO JSON.
    """
    data = read_json(annotations)
    where = str(annotations)
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise UserError(f"{where}: not COCO JSON: needs a list {key!r} at the top")
    if not images.is_dir():
        raise UserError(f"{images}: no such image folder (needed by {where}); check data.root and images")
    own = _read_categories(data["categories"], where)
    if classes is None:
        classes = own
    else:
        _check_same_classes(classes, own, where)

    label_of = {category: label for label, category in enumerate(classes.ids)}
    rows = {}
    for entry in data["images"]:
        record = _read_image(entry, images, where)
        if record.id in rows:
            raise UserError(f"{where}: image id {record.id} appears twice")
        rows[record.id] = record
    boxes: dict[int, list[tuple[float, ...]]] = {id_: [] for id_ in rows}
    known = set(own.ids)
    dropped = 0
    for entry in data["annotations"]:
        image_id, category, box, crowd = _read_annotation(entry, where)
        if image_id not in rows:
            raise UserError(
                f"{where}: annotation {entry.get('id')} is of image {image_id}, which is not listed"
            )
        if category not in known:
            raise UserError(
                f"{where}: annotation {entry.get('id')} has category {category}, which is not in "
                f"'categories' ({sorted(known)[:10]}...); add it there or remove the annotation"
            )
        if category not in label_of or entry.get("ignore"):
            continue
        clipped = _clip(box, rows[image_id])
        if clipped is None:
            dropped += 1
            continue
        boxes[image_id].append((*clipped, label_of[category], crowd))
    for id_, found in boxes.items():
        table = np.array(found, np.float64).reshape(-1, 6)
        rows[id_].boxes = table[:, :4].astype(np.float32)
        rows[id_].labels = table[:, 4].astype(np.int64)
        rows[id_].crowd = table[:, 5].astype(bool)
    return Records(images=list(rows.values()), classes=classes, source=annotations, dropped=dropped)


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises UserError where it is missing, unreadable or not JSON."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error


def _read_categories(entries: list[Any], where: str) -> Classes:
    if not entries:
        raise UserError(f"{where}: 'categories' is empty; a detector needs at least one class")
    found: dict[int, str] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not _is_int(entry.get("id")) or "name" not in entry:
            raise UserError(f"{where}: category {entry!r:.80}: needs an integer 'id' and a 'name'")
        if entry["id"] in found:
            raise UserError(f"{where}: category id {entry['id']} appears twice")
        found[entry["id"]] = str(entry["name"])
    ids = tuple(sorted(found))
    return Classes(names=tuple(found[id_] for id_ in ids), ids=ids)


def _check_same_classes(wanted: Classes, own: Classes, where: str) -> None:
    names = dict(zip(own.ids, own.names, strict=True))
    for id_, name in zip(wanted.ids, wanted.names, strict=True):
        if names.get(id_) != name:
            raise UserError(
                f"{where}: the checkpoint has {len(wanted)} classes, category {id_} is {name!r}; "
                f"here it is {names.get(id_)!r}, of {len(own)}. Use the data it was trained on"
            )


def _read_image(entry: Any, folder: Path, where: str) -> ImageRecord:
    ok = isinstance(entry, dict) and _is_int(entry.get("id")) and isinstance(entry.get("file_name"), str)
    if not ok or not all(_is_int(entry.get(key)) and entry[key] > 0 for key in ("width", "height")):
        raise UserError(
            f"{where}: image {entry!r:.120}: needs 'id', 'file_name', 'width' and 'height' above 0"
        )
    path = folder / entry["file_name"]
    if Path(entry["file_name"]).is_absolute() or ".." in Path(entry["file_name"]).parts:
        raise UserError(f"{where}: image {entry['id']}: file_name {entry['file_name']!r} leaves {folder}")
    empty = np.zeros(0)
    return ImageRecord(
        id=entry["id"],
        path=path,
        width=entry["width"],
        height=entry["height"],
        boxes=empty,
        labels=empty,
        crowd=empty,
    )


def _read_annotation(entry: Any, where: str) -> tuple[int, int, list[float], bool]:
    if (
        not isinstance(entry, dict)
        or not _is_int(entry.get("image_id"))
        or not _is_int(entry.get("category_id"))
    ):
        raise UserError(f"{where}: annotation {entry!r:.120}: needs integers 'image_id' and 'category_id'")
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise UserError(
            f"{where}: annotation {entry.get('id')}: bbox {box!r:.80} must be four finite numbers: "
            "x, y, width, height"
        )
    return entry["image_id"], entry["category_id"], box, bool(entry.get("iscrowd", 0))


def _clip(box: list[float], image: ImageRecord) -> tuple[float, float, float, float] | None:
    """Corners inside the image; None where less than a pixel is left either way (as MMDetection)."""
    x, y, width, height = box
    if width < 1 or height < 1:
        return None
    x1, y1 = max(x, 0.0), max(y, 0.0)
    x2, y2 = min(x + width, float(image.width)), min(y + height, float(image.height))
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def _is_int(value: object) -> bool:
    """A whole number that int64 holds; JSON's can have any number of digits."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: object) -> bool:
    """A finite number that float64 holds."""
    return (isinstance(value, float) and math.isfinite(value)) or _is_int(value)
