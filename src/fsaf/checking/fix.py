"""Write a data set without its faults: a COCO JSON file for each split, and a list of the changes.

Boxes are written in pixels of the stored pictures, as COCO's tools read them. Every image and every box of
the input is in the output or in the list.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fsaf.checking.images import ImageFile
from fsaf.checking.survey import Survey
from fsaf.data.exif import same_ratio, turn_back
from fsaf.data.faults import FAULT_KINDS
from fsaf.data.readers.coco_json import extent
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


def is_mended(records: Records) -> bool:
    """Return True if ``write_clean`` changes every fault of a split that training refuses."""
    refused = (kind for kind, count in records.faults.counts.items() if count)
    return all(kind in CHANGES for kind in refused if FAULT_KINDS[kind].rule == "refused")


def _clean(
    original: dict[str, Any] | None, records: Records, files: list[ImageFile]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a split as COCO JSON without its faults, and its changes."""
    assert records.table is not None
    gone = {fault.image for kind in _GONE for fault in records.faults.kept.get(kind, [])}
    before = clip_boxes(records.table, _sizes(records))
    moves = _moves(records, files, gone)
    table = _in_stored_pixels(records.table, moves)
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
                entry = _move_entry(entry, moves[position])
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


def _moves(records: Records, files: list[ImageFile], gone: set[int | None]) -> dict[int, Move]:
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


def _in_stored_pixels(table: BoxTable, moves: Mapping[int, Move]) -> BoxTable:
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


def _move_entry(entry: dict[str, Any], move: Move) -> dict[str, Any]:
    """Return an annotation with area and polygons moved; masks and keypoints that cannot be moved go."""
    moved = {key: value for key, value in entry.items() if key not in ("keypoints", "num_keypoints")}
    if entry.get("area") is not None:
        moved["area"] = entry["area"] * move.scale[0] * move.scale[1]
    if moved.pop("segmentation", None) is not None:
        polygons = move.polygons(entry["segmentation"])
        moved |= {} if polygons is None else {"segmentation": polygons}
    return moved


def _categories(original: dict[str, Any] | None, records: Records) -> dict[str, Any]:
    """Return the list of categories; those of the original keep their other keys."""
    ids, names = records.classes.ids, records.classes.names
    if original is None:
        return {"categories": [{"id": id_, "name": name} for id_, name in zip(ids, names, strict=True)]}
    return {"categories": [{**entry, "id": int(entry["id"])} for entry in original["categories"]]}
