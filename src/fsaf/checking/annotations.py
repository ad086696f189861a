"""Find every fault that the annotations of a data set show."""

from array import array
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fsaf.checking.reach import levels_of, resize_boxes
from fsaf.checking.roles import Roles
from fsaf.config import Config, DataConfig
from fsaf.data.decode import is_file
from fsaf.data.faults import Faults
from fsaf.data.readers.rotation import settle_rotation
from fsaf.data.records import Classes, Records, Split, is_trained_on
from fsaf.data.shapes import fit_image


def read_splits(splits: Mapping[str, Split], data: DataConfig) -> dict[str, Records]:
    """Read every split that is there and collect its faults.

    If the format numbers the class names that occur, those of all splits count. Images are opened only if
    annotations give no size. Raises UserError if a file is unreadable.
    """
    there = {name: split for name, split in splits.items() if split.missing is None}
    read = {name: split.read(None, Faults(refuse=False, keep=None), data) for name, split in there.items()}
    if there and not any(split.ids_are_official for split in there.values()):
        _number_alike(read)
    for records in read.values():
        settle_rotation(records, data)
    return read


def _number_alike(read: Mapping[str, Records]) -> None:
    """Give all splits the classes that occur in any of them."""
    names = sorted({name for records in read.values() for name in records.classes.names})
    classes = Classes(names=tuple(names), ids=tuple(range(1, len(names) + 1)))
    for records in read.values():
        label = np.array([names.index(name) for name in records.classes.names], np.int64)
        for image in records.images:
            image.labels = label[image.labels]
        if records.table is not None:
            records.table.label = array("q", label[np.asarray(records.table.label, np.int64)].tolist())
        records.classes = classes


def check_annotations(splits: Mapping[str, Records], config: Config, roles: Roles) -> None:
    """Add the faults that annotations show, and missing images, to those found in reading."""
    data = config.data
    train, val = (splits.get(name or "") for name in roles)
    for records in splits.values():
        if not records.images:
            records.faults.add("no-images", records.source, "lists no images")
        for image in records.images:
            unused = records is train and not is_trained_on(image, data)
            if not is_file(image.path):
                kind = "image-unused" if unused else "image-missing"
                records.faults.add(kind, image.path, "no such image", image=image.id)
            elif image.width * image.height > data.max_pixels:
                text = f"{image.width} x {image.height} by {records.source}"
                kind = "image-unused" if unused else "image-too-large"
                records.faults.add(kind, image.path, text, image=image.id)
    if train is not None:
        _check_training(train, config)
        if val is not None and not _has_classes(val, train):
            val.faults.add("classes-differ", val.source, f"has other classes than {train.source}")


def _check_training(records: Records, config: Config) -> None:
    """Add the faults that matter in training alone."""
    faults, source, data = records.faults, records.source, config.data
    if records.images and not any((~image.crowd).any() for image in records.images):
        faults.add("no-boxes", source, "no boxes at all; there is nothing to learn")
        return
    for image in records.images:
        name, count = image.path.name, len(image.boxes)
        if not count and not data.keep_empty:
            faults.add("image-without-boxes", source, f"{name}: no boxes", image=image.id)
        if count > data.max_boxes:
            faults.add("boxes-over-limit", source, f"{name}: {count} boxes", image=image.id)
        if min(image.width, image.height) < data.min_size:
            text = f"{name}: {image.width} x {image.height}"
            faults.add("image-small", source, text, image=image.id)
    if not records.images:
        return
    large = [image for image in records.images if min(image.width, image.height) >= data.min_size]
    if not any(is_trained_on(image, data) for image in large):
        text = f"every image is under {data.min_size} pixels (data.min_size) or without boxes"
        faults.add("no-boxes", source, text)
    for label in np.flatnonzero(count_classes(records) == 0).tolist():
        faults.add("class-without-boxes", source, f"class {records.classes.names[label]!r:.80}")
    if "anchor_free" in config.model.branches:
        _check_reach(replace(records, images=large), config)


def check_left(splits: Mapping[str, Records]) -> None:
    """Add the fault of splits of which all images with boxes are skipped because they do not decode."""
    for records in splits.values():
        skipped = {fault.image for fault in records.faults.kept.get("image-skipped", [])}
        had = [image for image in records.images if (~image.crowd).any()]
        if had and all(image.id in skipped for image in had):
            records.faults.add("no-boxes", records.source, "no image with boxes decodes")


def count_classes(records: Records) -> np.ndarray:
    """Return (C,) numbers of boxes of each class, without crowd regions."""
    counts = np.zeros(len(records.classes), np.int64)
    for image in records.images:
        counts += np.bincount(image.labels[~image.crowd], minlength=len(counts))
    return counts


def _has_classes(records: Records, wanted: Records) -> bool:
    """Return True if a split can be evaluated on with the classes of another, as the readers decide."""
    if not set(wanted.classes.names) <= set(records.classes.names):
        return False
    if records.classes is not wanted.classes or records.table is None or wanted.table is None:
        return True
    mine, others = set(records.table.label), set(wanted.table.label)  # classes that occur, as in VOC
    return not mine or not others or bool(mine & others)


def _check_reach(records: Records, config: Config) -> None:
    """Add the faults of boxes that no location can learn."""
    boxes, sizes, at = resize_boxes(records, lambda size: fit_image(size, config.data)[0])
    reached = levels_of(boxes, sizes, config.objective).any(1)
    if len(boxes) and not reached.any() and config.model.branches == ["anchor_free"]:
        text = f"none of its {len(boxes):,} boxes can be learned, all being too small after resizing"
        records.faults.add("no-boxes", records.source, text)
        return
    items = np.concatenate([np.zeros(0, np.int64), *(image.items[~image.crowd] for image in records.images)])
    for i in np.flatnonzero(~reached).tolist():
        image = records.images[at[i]]
        x1, y1, x2, y2 = boxes[i].tolist()
        text = f"{image.path.name}: box {int(items[i])}, {x2 - x1:.1f} x {y2 - y1:.1f} pixels when resized"
        records.faults.add("box-no-location", records.source, text, image=image.id, item=int(items[i]))
