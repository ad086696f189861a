"""COCO JSON: find the files of a data set and read one into records."""

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
from fsaf.data.readers.layout import SPLIT_NAMES, is_split_name
from fsaf.data.records import Classes, ImageRecord, Records, Split, assemble, inside
from fsaf.data.table import BoxTable
from fsaf.errors import UserError

NAME = "COCO"
LAYOUT = "annotations/*.json (COCO)"
"""Files to look for, for the message if there are none."""


@dataclass(frozen=True, kw_only=True)
class CocoSplit:
    """A COCO JSON file and the folders that its images may be in."""

    annotations: Path
    images: tuple[Path, ...]
    """Folders that ``file_name`` may start from; the first that holds one of the first images is used."""
    ids_are_official: bool = True

    @property
    def source(self) -> Path:
        """The JSON file."""
        return self.annotations

    def read(self, classes: Classes | None, faults: Faults, data: DataConfig) -> Records:
        """Read the file as ``read_coco`` does."""
        return read_coco(self.annotations, self.images, classes, faults)

    def original(self) -> dict[str, Any] | None:
        """Return all that the file holds, polygons included."""
        return dict(read_json(self.annotations, polygons=True))


def find(data: Path) -> dict[str, Split]:
    """Return the splits of a JSON file, or of a folder in COCO's layouts, by name.

    If there are ``instances_*.json``, other JSON files beside them (captions, keypoints) are not read.
    """
    if data.is_file():
        split = at(data, None, "all")
        return {split_name(data): split} if split else {}
    files = sorted((data / "annotations").glob("*.json"))
    files = files or [file for name in SPLIT_NAMES for file in sorted((data / name).glob("*.coco.json"))]
    files = files or sorted(file for file in data.glob("*.json") if is_split_name(split_name(file)))
    files = [file for file in files if file.name.startswith("instances_")] or files
    return {split_name(file): CocoSplit(annotations=file, images=_image_folders(file)) for file in files}


def at(file: Path, images: Path | None, role: str) -> Split | None:
    """Return the split of a JSON file that a config names, else None."""
    if file.is_dir() or file.suffix in (".txt", ".yaml", ".yml"):
        return None
    return CocoSplit(annotations=file, images=(images,) if images else _image_folders(file))


def split_name(file: Path) -> str:
    """Return the name of the split in a JSON file, from the name of the file or of its folder."""
    if file.name.endswith(".coco.json"):  # train/_annotations.coco.json
        return file.parent.name
    return file.stem.removeprefix("instances_") or file.stem


def _image_folders(file: Path) -> tuple[Path, ...]:
    """Return the folders that ``file_name`` may start from, the likeliest first."""
    if file.name.endswith(".coco.json"):
        return (file.parent,)
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    name = split_name(file)
    folders = [root / each for each in (f"images/{name}", name, "images", ".")]
    return tuple(folder for folder in folders if folder.is_dir())


def read_coco(
    annotations: Path,
    images: Path | Sequence[Path],
    classes: Classes | None = None,
    faults: Faults | None = None,
) -> Records:
    """Read a COCO JSON file; boxes are clipped to their images.

    annotations: the JSON file. images: the folder that ``file_name`` starts from, or several to choose from.
    classes: those of a detector, which the file's categories must contain with the same ids and names; None
    takes the file's. faults: collects what is wrong; by default refused faults raise.
    Raises UserError, naming file and value, if the file is missing or is not COCO JSON.
    """
    faults = Faults() if faults is None else faults
    data = read_json(annotations)
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
    for number, entry in enumerate(data["images"]):
        record = _read_image(entry, number, folder, annotations, faults)
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
        dropped=faults.dropped,
        folder=folder,
        faults=faults,
        table=table,
        scored_unclipped=True,
    )


def _choose_folder(folders: Sequence[Path], entries: list[Any], faults: Faults, where: str) -> Path:
    """Return the first folder that holds one of the first images; if none does, raise or return the first."""
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
    """Parse a JSON file. Raises UserError if it is missing, unreadable or not JSON.

    polygons: also parse ``segmentation``. Boxes do not need it, and it is most of a COCO file: without it
    COCO's largest file is read three times as fast.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with _no_collection():
            if not polygons:
                with contextlib.suppress(ValueError):
                    return json.loads(_POLYGONS.sub(b'"segmentation": 0', path.read_bytes()))
            # Parse the unchanged file also after an error, so that the message gives the right position.
            return json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError, MemoryError) as error:  # ValueError: also a number too long
        raise UserError(f"{path}: not readable as JSON ({error})") from error


# A key followed by nested lists of numbers. Inside a string the quotes would follow backslashes.
_POLYGONS = re.compile(rb'"segmentation"\s*:\s*\[[][\d\s.,eE+-]*\]')


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Disable the garbage collector, which would search a million new objects again and again."""
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
    names: dict[int, str] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not _is_int(entry.get("id")) or "name" not in entry:
            raise UserError(f"{where}: category {entry!r:.80}: needs an integer 'id' and a 'name'")
        if entry["id"] in names:
            raise UserError(f"{where}: category id {entry['id']} appears twice")
        names[entry["id"]] = str(entry["name"])
    ids = tuple(sorted(names))
    return Classes(names=tuple(names[id_] for id_ in ids), ids=ids)


def _check_same_classes(wanted: Classes, own: Classes, where: str) -> None:
    names = dict(zip(own.ids, own.names, strict=True))
    for id_, name in zip(wanted.ids, wanted.names, strict=True):
        if names.get(id_) != name:
            raise UserError(
                f"{where}: the detector has {len(wanted)} classes, category {id_} is {name!r:.80}; "
                f"here it is {names.get(id_)!r:.80}, of {len(own)}. Give data with its classes"
            )


def _read_image(entry: Any, number: int, folder: Path, where: Path, faults: Faults) -> ImageRecord | None:
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
    return ImageRecord(
        id=entry["id"], path=folder / name, width=entry["width"], height=entry["height"], entry=number
    )


def _read_boxes(
    entries: list[Any], position: dict[int, int], classes: Classes, own: Classes, where: Path, faults: Faults
) -> BoxTable:
    label_of = {category: label for label, category in enumerate(classes.ids)}
    known = set(own.ids)
    table = BoxTable()
    ids: set[int] = set()
    for number, entry in enumerate(entries):
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
            text = f"annotation {given!r:.40}: area {area!r:.80} must be a number"
            faults.add("entry", where, text, **place)
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
        else:
            if entry.get("ignore"):
                faults.add("box-ignored", where, f"annotation {given!r:.40} is marked 'ignore'", **place)
            table.add(
                position[image],
                box,
                label_of[category],
                bool(entry.get("iscrowd", 0)),
                item,
                entry=number,
                area=math.nan if area is None else area,
                used=not entry.get("ignore"),
            )
    return table


def _is_int(value: object) -> bool:
    """Return True for a whole number that int64 holds; JSON's numbers may have any number of digits."""
    return type(value) is int and -(2**63) < value < 2**63


def _is_number(value: object) -> bool:
    """Return True for a finite number that float64 holds."""
    return (type(value) is float and math.isfinite(value)) or _is_int(value)
