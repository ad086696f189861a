"""COCO JSON: reading a file into records."""

import contextlib
import gc
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsaf.config import DataConfig
from fsaf.data.decode import is_file
from fsaf.data.faults import Faults
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


@dataclass(frozen=True, kw_only=True)
class CocoSplit:
    """Where a split lies."""

    annotations: Path
    images: tuple[Path, ...]
    """Folders that ``file_name`` may start from; the first that holds one of the first images is it."""

    def read(self, classes: Classes | None, faults: Faults, data: DataConfig) -> Records:
        """As ``read_coco``."""
        return read_coco(self.annotations, self.images, classes, faults)


def read_coco(
    annotations: Path,
    images: Path | Sequence[Path],
    classes: Classes | None = None,
    faults: Faults | None = None,
) -> Records:
    """Read a COCO JSON file.

    annotations: the JSON file. images: the folder that ``file_name`` starts from, or some to choose from.
    classes: those of a checkpoint, which the file's categories must contain with the same ids and names; else
    the file's own. faults: takes what is wrong; by default anything that its rule refuses raises.
    Boxes are clipped to their image. Raises UserError, naming file and value, where the file is missing or is
    not COCO JSON.
    """
    return parse_coco(
        read_json(annotations), annotations, images, classes, Faults() if faults is None else faults
    )


def parse_coco(
    data: Any, annotations: Path, images: Path | Sequence[Path], classes: Classes | None, faults: Faults
) -> Records:
    """As ``read_coco`` from what file ``annotations`` holds."""
    where = str(annotations)
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise UserError(f"{where}: not COCO JSON: needs a list {key!r} at the top")
    if isinstance(images, Path) and not images.is_dir():
        raise UserError(f"{images}: no such image folder (needed by {where}); check data.root and images")
    own = _read_categories(data["categories"], where)
    if classes is None:
        classes = own
    else:
        _check_same_classes(classes, own, where)

    folder = images if isinstance(images, Path) else _choose_folder(images, data["images"], faults, where)
    records: list[ImageRecord] = []
    position: dict[int, int] = {}
    for entry in data["images"]:
        record = _read_image(entry, folder, annotations, faults)
        if record is None:
            continue
        if record.id in position:
            faults.add("image-id-twice", annotations, f"image id {record.id} appears twice", image=record.id)
            continue
        position[record.id] = len(records)
        records.append(record)
    table = _read_boxes(data["annotations"], position, classes, own, annotations, faults)
    del data  # hundreds of megabytes
    assemble(records, table, faults, lambda _: annotations, "annotation")
    return Records(
        images=records,
        classes=classes,
        source=annotations,
        dropped=count_dropped(faults),
        folder=folder,
        faults=faults,
    )


def _choose_folder(folders: Sequence[Path], entries: list[Any], faults: Faults, where: str) -> Path:
    """The first folder that holds one of the first images; without one, the first folder or a UserError."""
    names = [entry.get("file_name") for entry in entries[:20] if isinstance(entry, dict)]
    safe = [name for each in names if isinstance(each, str) and (name := inside(each))]
    for folder in folders:
        if any(is_file(folder / name) for name in safe):
            return folder
    if faults.refuse and safe:
        raise UserError(
            f"{where}: none of its first images ({safe[0]!r:.80} ...) is in any of "
            f"{', '.join(map(str, folders)) or 'the usual folders'}; give annotations and images of the split"
        )
    return folders[0] if folders else Path(where).parent


def read_json(path: Path, polygons: bool = False) -> Any:
    """Parse a JSON file. Raises UserError where it is missing, unreadable or not JSON.

    polygons: keep what stands under ``segmentation``. It is most of a COCO file, and boxes do without; not
    parsing its numbers makes COCO's largest file three times as fast to read.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with _no_collection():
            if not polygons:
                with contextlib.suppress(ValueError):
                    return json.loads(_POLYGONS.sub(b'"segmentation": 0', path.read_bytes()))
            return json.loads(path.read_bytes())  # or the place of the error, which polygons count for
    except (ValueError, OSError, RecursionError, MemoryError) as error:  # ValueError: also a number too long
        raise UserError(f"{path}: not readable as JSON ({error})") from error


# A key and a list of numbers and lists; the quotes of a key inside a string would stand behind backslashes.
_POLYGONS = re.compile(rb'"segmentation"\s*:\s*\[[][\d\s.,eE+-]*\]')


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Without garbage collection, which looks at a million new objects again and again and frees none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


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
                f"{where}: the detector has {len(wanted)} classes, category {id_} is {name!r:.80}; "
                f"here it is {names.get(id_)!r:.80}, of {len(own)}. Give data with its classes"
            )


def _read_image(entry: Any, folder: Path, where: Path, faults: Faults) -> ImageRecord | None:
    ok = isinstance(entry, dict) and _is_int(entry.get("id")) and isinstance(entry.get("file_name"), str)
    if not ok or not all(_is_int(entry.get(key)) and entry[key] > 0 for key in ("width", "height")):
        text = f"image {entry!r:.120}: needs 'id', 'file_name', 'width' and 'height' above 0"
        faults.add("entry", where, text, image=entry["id"] if ok else None)
        return None
    name = inside(entry["file_name"])
    if name is None:
        text = f"image {entry['id']}: file_name {entry['file_name']!r:.120} leaves {folder}"
        faults.add("path-leaves", where, text, image=entry["id"])
        return None
    return no_boxes(entry["id"], folder / name, entry["width"], entry["height"])


def _read_boxes(
    entries: list[Any], position: dict[int, int], classes: Classes, own: Classes, where: Path, faults: Faults
) -> BoxTable:
    label_of = {category: label for label, category in enumerate(classes.ids)}
    known = set(own.ids)
    table = BoxTable()
    ids: set[int] = set()
    for entry in entries:
        if (
            not isinstance(entry, dict)
            or not _is_int(entry.get("image_id"))
            or not _is_int(entry.get("category_id"))
        ):
            text = f"annotation {entry!r:.120}: needs integers 'image_id' and 'category_id'"
            faults.add("entry", where, text)
            continue
        image, category, given = entry["image_id"], entry["category_id"], entry.get("id")
        item: int = given if _is_int(given) else -1  # type: ignore[assignment]
        place: dict[str, int] = {"image": image, "item": item}
        if item == -1 or item in ids:
            text = f"annotation {given!r:.40} of image {image}: the id is missing or was used before"
            faults.add("annotation-id", where, text, **place)
        ids.add(item)
        box, area = entry.get("bbox"), entry.get("area")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            text = (
                f"annotation {given!r:.40}: bbox {box!r:.80} must be four finite numbers: x, y, width, height"
            )
            faults.add("box-not-a-number", where, text, **place)
        elif area is not None and not _is_number(area):
            faults.add(
                "entry", where, f"annotation {given!r:.40}: area {area!r:.80} must be a number", **place
            )
        elif image not in position:
            text = f"annotation {given!r:.40} is of image {image}, which is not listed"
            faults.add("unknown-image", where, text, **place)
        elif category not in known:
            text = (
                f"annotation {given!r:.40} has category {category}, which is not in 'categories' "
                f"({sorted(known)[:10]}...); add it there or remove the annotation"
            )
            faults.add("unknown-category", where, text, **place)
        elif category not in label_of:
            text = f"annotation {given!r:.40} is of category {category}, which the detector does not have"
            faults.add("box-other-class", where, text, **place)
        elif entry.get("ignore"):
            faults.add("box-ignored", where, f"annotation {given!r:.40} is marked 'ignore'", **place)
        else:
            table.add(position[image], box, label_of[category], bool(entry.get("iscrowd", 0)), item)
    return table


def _is_int(value: object) -> bool:
    """A whole number that int64 holds; JSON's can have any number of digits."""
    return type(value) is int and -(2**63) < value < 2**63


def _is_number(value: object) -> bool:
    """A finite number that float64 holds."""
    return (type(value) is float and math.isfinite(value)) or _is_int(value)
