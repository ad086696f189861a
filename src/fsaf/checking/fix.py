"""Write a data set without its faults: a COCO JSON file for each split, and a list of the changes.

Boxes are written in pixels of the stored pictures, as COCO's tools read them. Every image and every box of
the input is in the output or in the list.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from fsaf.checking.images import ImageFile
from fsaf.checking.moves import in_stored_pixels, move_entry, moves_of
from fsaf.checking.survey import Survey
from fsaf.data.faults import FAULT_KINDS
from fsaf.data.records import ImageRecord, Records
from fsaf.data.table import BoxTable, clip_boxes
from fsaf.errors import DataError
from fsaf.files import check_folder, whole_folder, write_text

CHANGES: dict[str, str] = {
    "entry": "removed",
    "box-not-a-number": "removed",
    "unknown-category": "removed",
    "unknown-image": "removed",
    "image-id-twice": "the later entry removed; both, if they name different files",
    "path-leaves": "removed",
    "image-missing": "removed with its boxes",
    "image-too-large": "removed with its boxes",
    "image-unreadable": "removed with its boxes",
    "image-unused": "removed",
    "image-skipped": "removed with its boxes",
    "size-differs": "width and height set to the file's, boxes scaled with them",
    "size-differs-unused": "width and height set to the file's, boxes scaled with them",
    "box-inverted": "removed",
    "box-empty": "removed",
    "box-outside": "removed",
    "box-twice": "removed; the first one stays",
    "box-clipped": "clipped",
    "loose-number": "written as whole numbers",
    "image-id-text": "numbered",
    "size-missing": "width and height set to the file's",
    "box-from-polygon": "bbox written",
    "annotation-id": "all annotations of the split numbered anew",
    "label-without-image": "left out",
    "in-two-splits": "removed from this split, with its boxes",
    "image-twice": "removed with its boxes; the first one stays",
}
"""The change for each kind of fault; faults of other kinds are not changed."""

_GONE = (
    *("image-missing", "image-unreadable", "image-too-large", "image-unused", "image-skipped"),
    *("in-two-splits", "image-twice"),
)
"""Kinds of images that are removed although the annotations list them."""


def write_clean(out: Path, survey: Survey) -> tuple[dict[str, Path], int]:
    """Write ``annotations/instances_SPLIT.json`` and ``changes.json`` into folder ``out``.

    Returns the file of each split, and the number of changes. Images stay in their folder; ``file_name``
    starts from ``Records.folder``. Of a COCO file all other keys are kept. Raises UserError, writing nothing,
    if one of the files exists already, if a split would be empty, or if an image has another size than
    recorded and nothing explains it.
    """
    assert survey.files is not None
    check_folder(out)
    folder = out / "annotations"
    targets = {name: folder / f"instances_{name}.json" for name in survey.read}
    for file in (*targets.values(), out / "changes.json"):
        if file.exists():
            raise DataError(f"{file}: already exists; give another --fix FOLDER")
    contents: dict[Path, Any] = {}
    changes: list[dict[str, Any]] = []
    for name, records in survey.read.items():
        original = survey.splits[name].original()
        content, changed = _clean(original, records, survey.files[name])
        if records.images and not content["images"]:
            raise DataError(f"{records.source}: no image of split {name} can be used, so nothing is written")
        contents[targets[name]] = content
        changes += [{"split": name, **change} for change in changed]
    contents[out / "changes.json"] = changes
    if folder.exists():
        for file, content in contents.items():
            write_text(file, json.dumps(content))
    else:
        with whole_folder(out) as draft:
            (draft / folder.name).mkdir()
            for file, content in contents.items():
                write_text(draft / file.relative_to(out), json.dumps(content))
    return targets, len(changes)


def is_mended(survey: Survey) -> bool:
    """Return True if ``write_clean`` changes every fault that training refuses, and can be run."""
    for records in survey.used.values():
        refused = (kind for kind, count in records.faults.counts.items() if count)
        if not all(kind in CHANGES for kind in refused if FAULT_KINDS[kind].rule == "refused"):
            return False
    for name, files in (survey.files or {}).items():
        records = survey.read[name]
        gone = _gone(records)
        if records.images and all(image.id in gone for image in records.images):
            return False
        try:
            moves_of(records, files, gone)
        except DataError:
            return False
    return True


def _gone(records: Records) -> set[int | None]:
    """Return the ids of the images that are removed."""
    return {fault.image for kind in _GONE for fault in records.faults.kept.get(kind, [])}


def _clean(
    original: dict[str, Any] | None, records: Records, files: list[ImageFile]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a split as COCO JSON without its faults, and its changes."""
    assert records.table is not None
    gone = _gone(records)
    before = clip_boxes(records.table, _sizes(records))
    moves = moves_of(records, files, gone)
    table = in_stored_pixels(records.table, moves)
    stored = [
        file.stored or (image.height, image.width) for image, file in zip(records.images, files, strict=True)
    ]
    after = clip_boxes(table, np.array(stored, np.float64).reshape(-1, 2)[:, ::-1])
    changes = _list_changes(records, gone)
    for position, (image, file) in enumerate(zip(records.images, files, strict=True)):
        if image.id in gone:
            rows = (np.asarray(table.image) == position) & (before.keep | (np.asarray(table.used) == 0))
            items = [table.item[i] for i in np.flatnonzero(rows).tolist()]
            changes.append(_change("image-removed", "its boxes, removed with it", image, items=items))
        elif file.turned:
            changes.append(_change("exif-rotated", "boxes turned to the stored picture", image))
    lost = before.keep & ~after.keep & np.asarray(table.used, bool)
    for i in np.flatnonzero(lost).tolist():
        if (image := records.images[table.image[i]]).id not in gone:
            changes.append(_change("box-empty", "removed: too small once scaled", image, item=table.item[i]))

    images = []
    for image, (height, width) in zip(records.images, stored, strict=True):
        if image.id not in gone:
            name = image.path.relative_to(records.folder).as_posix()
            entry = original["images"][image.entry] if original else {}
            images.append({**entry, "id": image.id, "file_name": name, "width": width, "height": height})
    annotations: list[dict[str, Any]] = []
    for i, position in enumerate(table.image):
        if records.images[position].id not in gone and (after.keep[i] or not table.used[i]):
            entry = original["annotations"][table.entry[i]] if original else None
            if entry is not None and position in moves:
                entry = move_entry(entry, moves[position])
            annotations.append(_annotation(records, table, i, entry, after.boxes[i], stored[position]))
    if original is None or "annotation-id" in records.faults:
        annotations = [{**entry, "id": i} for i, entry in enumerate(annotations, start=1)]
    return {
        **(original or {}),
        **_categories(original, records),
        "images": images,
        "annotations": annotations,
    }, changes


def _list_changes(records: Records, gone: set[int | None]) -> list[dict[str, Any]]:
    """Return each fault that is changed, with the change."""
    return [
        {"change": CHANGES[kind], **fault.to_dict()}
        for kind in FAULT_KINDS
        if kind in CHANGES
        for fault in records.faults.kept.get(kind, [])
        if kind in _GONE or fault.image not in gone or fault.item is not None
    ]


def _change(kind: str, change: str, image: ImageRecord, **more: Any) -> dict[str, Any]:
    return {"change": change, "kind": kind, "file": str(image.path), "image_id": image.id, **more}


def _sizes(records: Records) -> np.ndarray:
    return np.array([(image.width, image.height) for image in records.images], np.float64).reshape(-1, 2)


def _annotation(
    records: Records,
    table: BoxTable,
    i: int,
    entry: dict[str, Any] | None,
    box: np.ndarray,
    size: tuple[int, int],
) -> dict[str, Any]:
    """Return box ``i`` as an annotation: clipped, other keys of ``entry`` kept, ``area`` no larger than it.

    size: height and width of the image.
    """
    x, y, w, h = table.xywh[4 * i : 4 * i + 4]
    now: dict[str, Any] = {"image_id": records.images[table.image[i]].id}
    now["category_id"] = records.classes.ids[table.label[i]]
    x1, y1, x2, y2 = box.tolist()
    clipped = x < 0 or y < 0 or x + w > size[1] or y + h > size[0]
    xywh = [x1, y1, x2 - x1, y2 - y1] if clipped and table.used[i] else [x, y, w, h]
    if entry is None:
        return now | {"bbox": xywh, "area": xywh[2] * xywh[3], "iscrowd": int(table.crowd[i])}
    if entry.get("bbox") == xywh:
        return {**entry, **now}
    area = entry.get("area")
    changed = {"bbox": xywh} | ({} if area is None else {"area": min(area, xywh[2] * xywh[3])})
    return {**entry, **now, **changed}


def _categories(original: dict[str, Any] | None, records: Records) -> dict[str, Any]:
    """Return the list of categories; those of the original keep their other keys."""
    ids, names = records.classes.ids, records.classes.names
    if original is None:
        return {"categories": [{"id": id_, "name": name} for id_, name in zip(ids, names, strict=True)]}
    return {"categories": [{**entry, "id": int(entry["id"])} for entry in original["categories"]]}
