"""Write a data set without its faults: a COCO JSON file for each split, and a list of the changes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fsaf.checking.survey import ImageFile, unusable
from fsaf.data.faults import FAULT_KINDS
from fsaf.data.records import Records, Split
from fsaf.data.table import clip_boxes
from fsaf.errors import UserError
from fsaf.files import check_folder, write_text

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
"""The change for each kind of fault; faults of other kinds are not changed."""


def write_clean(
    out: Path,
    splits: Mapping[str, Split],
    found: Mapping[str, Records],
    files: Mapping[str, list[ImageFile]],
) -> list[Path]:
    """Write ``annotations/instances_SPLIT.json`` and ``changes.json`` into folder ``out``; return the files.

    Images stay in their folder; ``file_name`` starts from ``Records.folder``. Of a COCO file all other keys
    (polygons, areas) are kept. Raises UserError if one of the files exists already.
    """
    check_folder(out)
    targets = {name: out / "annotations" / f"instances_{name}.json" for name in found}
    changes = out / "changes.json"
    for file in (*targets.values(), changes):
        if file.exists():
            raise UserError(f"{file}: is there already; give another --fix FOLDER")
    contents: dict[Path, Any] = {
        targets[name]: _clean(splits[name].original(), records, files[name])
        for name, records in found.items()
    }
    contents[changes] = list_changes(found)
    for file, content in contents.items():
        write_text(file, json.dumps(content))
    return list(contents)


def list_changes(found: Mapping[str, Records]) -> list[dict[str, Any]]:
    """Return each fault that is changed, with its split and the change."""
    return [
        {"split": name, "change": CHANGES[kind], **fault.to_dict()}
        for name, records in found.items()
        for kind in FAULT_KINDS
        if kind in CHANGES
        for fault in records.faults.kept.get(kind, [])
    ]


def _clean(original: dict[str, Any] | None, records: Records, files: list[ImageFile]) -> dict[str, Any]:
    """Return a split as COCO JSON without its faults; keys of the original entries are kept."""
    assert records.table is not None
    table, gone = records.table, unusable(records)
    sizes = [
        file.size or (image.height, image.width) for image, file in zip(records.images, files, strict=True)
    ]
    images = []
    for image, (height, width) in zip(records.images, sizes, strict=True):
        if image.id not in gone:
            entry = original["images"][image.entry] if original else {"id": image.id}
            name = {} if original else {"file_name": image.path.relative_to(records.folder).as_posix()}
            images.append({**entry, **name, "width": width, "height": height})
    clipped = clip_boxes(table, np.array(sizes, np.float64).reshape(-1, 2)[:, ::-1])
    annotations: list[dict[str, Any]] = []
    for i, position in enumerate(table.image):
        image, (height, width) = records.images[position], sizes[position]
        if image.id in gone or not (clipped.keep[i] or not table.used[i]):
            continue
        xywh = table.xywh[4 * i : 4 * i + 4].tolist()
        entry = original["annotations"][table.entry[i]] if original else _entry(records, i, len(annotations))
        inside = xywh[0] >= 0 and xywh[1] >= 0 and xywh[0] + xywh[2] <= width and xywh[1] + xywh[3] <= height
        annotations.append(
            entry if original and inside else {**entry, **_box(entry, clipped.boxes[i].tolist())}
        )
    if "annotation-id" in records.faults:
        annotations = [{**entry, "id": i} for i, entry in enumerate(annotations, start=1)]
    ids, names = records.classes.ids, records.classes.names
    categories = [{"id": id_, "name": name} for id_, name in zip(ids, names, strict=True)]
    return {"categories": categories, **(original or {}), "images": images, "annotations": annotations}


def _entry(records: Records, i: int, number: int) -> dict[str, Any]:
    assert records.table is not None
    table = records.table
    return {
        "id": number + 1,
        "image_id": records.images[table.image[i]].id,
        "category_id": records.classes.ids[table.label[i]],
        "area": float("inf"),
        "iscrowd": int(table.crowd[i]),
    }


def _box(entry: Mapping[str, Any], box: list[float]) -> dict[str, Any]:
    """Return ``bbox`` of the clipped box, and ``area``, if the entry has one, reduced to the box's."""
    x1, y1, x2, y2 = box
    area = entry.get("area")
    return {"bbox": [x1, y1, x2 - x1, y2 - y1]} | (
        {} if area is None else {"area": min(area, (x2 - x1) * (y2 - y1))}
    )
