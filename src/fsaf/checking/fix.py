"""Writing a data set without its faults: one COCO JSON a split, and a list of what was changed."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fsaf.checking.survey import ImageFile, unusable
from fsaf.config import DataConfig
from fsaf.data.faults import KINDS, Faults
from fsaf.data.readers.coco import parse_coco, read_json
from fsaf.data.readers.formats import Split
from fsaf.data.readers.voc import VocSplit
from fsaf.data.records import Records, inside, to_coco
from fsaf.errors import UserError, check_folder

CHANGES: dict[str, str] = {
    "entry": "removed",
    "box-not-a-number": "removed",
    "unknown-category": "removed",
    "unknown-image": "removed",
    "image-id-twice": "the later entry removed",
    "path-leaves": "removed",
    "image-missing": "removed with its boxes",
    "image-too-large": "removed with its boxes",
    "image-unreadable": "removed with its boxes",
    "size-differs": "width and height set to the file's, boxes clipped to them",
    "size-differs-in-evaluation": "width and height set to the file's, boxes clipped to them",
    "box-inverted": "removed",
    "box-empty": "removed",
    "box-outside": "removed",
    "box-clipped": "clipped",
    "annotation-id": "all annotations of the split numbered anew",
    "in-two-splits": "removed from this split, with its boxes",
    "image-twice": "removed with its boxes; the first one stays",
}
"""What is done about each kind of fault; nothing about the others."""


def write_clean(
    out: Path,
    splits: Mapping[str, Split],
    found: Mapping[str, Records],
    told: Mapping[str, list[ImageFile]],
    data: DataConfig,
) -> list[Path]:
    """Write ``annotations/instances_SPLIT.json`` and ``changes.json`` into folder ``out``; returns the files.

    Image files stay where they are: ``file_name`` starts from ``Records.folder``. Of a COCO file everything
    else in its entries is kept (polygons, areas). Raises UserError where one of the files is there already.
    """
    check_folder(out)
    files = {name: out / "annotations" / f"instances_{name}.json" for name in found}
    changes = out / "changes.json"
    for file in (*files.values(), changes):
        if file.exists():
            raise UserError(f"{file}: is there already; give another --fix FOLDER")
    contents: dict[Path, Any] = {}
    for name, records in found.items():
        sizes = {
            image.id: file.size
            for image, file in zip(records.images, told[name], strict=True)
            if file.size is not None
        }
        clean = _clean_coco if records.format == "coco" else _clean_other
        contents[files[name]] = clean(splits[name], records, sizes, data)
    contents[changes] = list_changes(found)
    try:
        (out / "annotations").mkdir(parents=True, exist_ok=True)
        for file, content in contents.items():
            temporary = file.with_name(f".{file.name}.tmp")
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(file)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error})") from error
    return list(contents)


def list_changes(found: Mapping[str, Records]) -> list[dict[str, Any]]:
    """Each change: the fault, its split, and what was done about it."""
    return [
        {"split": name, "change": CHANGES[kind], **fault.to_dict()}
        for name, records in found.items()
        for kind in KINDS
        if kind in CHANGES
        for fault in records.faults.found.get(kind, [])
    ]


def _clean_other(
    split: Split, records: Records, sizes: Mapping[int, tuple[int, int]], data: DataConfig
) -> dict[str, Any]:
    gone = unusable(records)
    wrong_sizes = "size-differs" in records.faults or "size-differs-in-evaluation" in records.faults
    if isinstance(split, VocSplit) and wrong_sizes:
        # Their boxes were clipped to sizes that are wrong.
        again = replace(split, file_sizes=True).read(records.classes, Faults(refuse=False, keep=None), data)
        paths = {image.path for image in records.images if image.id in gone}
        kept = [image for image in again.images if image.path not in paths]
        return to_coco(replace(again, images=kept))
    return to_coco(replace(records, images=[image for image in records.images if image.id not in gone]))


def _clean_coco(
    split: Split, records: Records, sizes: Mapping[int, tuple[int, int]], data: DataConfig
) -> dict[str, Any]:
    raw = read_json(records.source, polygons=True)
    gone = unusable(records)
    # Entries may share an id, and some be broken: what was read tells which one it was.
    entry_of: dict[tuple[Any, ...], dict[str, Any]] = {}
    for entry in raw["images"]:
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if isinstance(name, str) and (below := inside(name)) is not None:
            values = (entry.get(key) for key in ("id", "width", "height"))
            key = (*(value if type(value) is int else None for value in values), records.folder / below)
            entry_of.setdefault(key, entry)
    images = []
    for image in records.images:
        if image.id in gone:
            continue
        height, width = sizes.get(image.id, (image.height, image.width))
        entry = entry_of[image.id, image.width, image.height, image.path]
        images.append({**entry, "width": width, "height": height})
    # Read again with the right sizes, and numbers for ids that lead back to the entries.
    entries = [entry for entry in raw["annotations"] if isinstance(entry, dict)]
    numbered = [
        {**{key: value for key, value in entry.items() if key != "ignore"}, "id": i}
        for i, entry in enumerate(entries)
    ]
    probe = {"images": images, "annotations": numbered, "categories": raw["categories"]}
    again = parse_coco(probe, records.source, records.folder, None, Faults(refuse=False, keep=0))
    annotations = []
    for image in again.images:
        for box, i in zip(image.boxes.tolist(), image.items.tolist(), strict=True):
            annotations.append(_clean_annotation(entries[i], box, image.width, image.height))
    if "annotation-id" in records.faults:
        annotations = [{**entry, "id": i} for i, entry in enumerate(annotations, start=1)]
    return {**raw, "images": images, "annotations": annotations}


def _clean_annotation(entry: dict[str, Any], box: list[float], width: int, height: int) -> dict[str, Any]:
    """The entry with its box clipped, where it reaches over the edge, and ``area`` no larger than that."""
    x, y, w, h = entry["bbox"]
    if x >= 0 and y >= 0 and x + w <= width and y + h <= height:
        return entry
    x1, y1, x2, y2 = box
    clipped: dict[str, Any] = {"bbox": [x1, y1, x2 - x1, y2 - y1]}
    if entry.get("area") is not None:
        clipped["area"] = min(entry["area"], (x2 - x1) * (y2 - y1))
    return {**entry, **clipped}
