"""Find every fault of a data set, in its annotations and in its image files."""

import hashlib
import os
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from fsaf.checking.reach import levels_of, resize_boxes
from fsaf.config import DataConfig, ObjectiveConfig
from fsaf.data.decode import ImageTooLarge, header_size, is_file, open_image
from fsaf.data.faults import Faults
from fsaf.data.progress import follow_iterator
from fsaf.data.records import Classes, ImageRecord, Records, Split
from fsaf.data.shapes import fit_image
from fsaf.errors import UserError

_BLOCK = 1 << 20
T = TypeVar("T")
U = TypeVar("U")


def read_splits(splits: Mapping[str, Split], data: DataConfig) -> dict[str, Records]:
    """Read every split and collect its faults; images are opened only if annotations give no size.

    If the format numbers the class names that occur, those of all splits count. Raises UserError if a file is
    unreadable.
    """
    found = {name: split.read(None, Faults(refuse=False, keep=None), data) for name, split in splits.items()}
    if not any(split.ids_are_official for split in splits.values()):
        names = sorted({name for records in found.values() for name in records.classes.names})
        classes = Classes(names=tuple(names), ids=tuple(range(1, len(names) + 1)))
        for records in found.values():
            label = np.array([names.index(name) for name in records.classes.names], np.int64)
            for image in records.images:
                image.labels = label[image.labels]
            if records.table is not None:
                records.table.label = array("q", label[np.asarray(records.table.label, np.int64)].tolist())
            records.classes = classes
    return found


def check_annotations(splits: Mapping[str, Records], data: DataConfig, objective: ObjectiveConfig) -> None:
    """Add the faults that annotations show, and missing images, to those found in reading."""
    first = next(iter(splits.values()))
    for name, records in splits.items():
        faults, source = records.faults, records.source
        training = learned_from(name)
        if not records.images:
            faults.add("no-images", source, "lists no images")
        elif training and not any((~image.crowd).any() for image in records.images):
            faults.add("no-boxes", source, "no boxes at all; there is nothing to learn")
        if not _holds(records.classes, first.classes):
            faults.add("classes-differ", source, f"has other classes than {first.source}")
        for image in records.images:
            if not is_file(image.path):
                faults.add("image-missing", image.path, "no such image", image=image.id)
            elif _too_large(image, data):
                text = f"{image.width} x {image.height} by {source}"
                faults.add("image-too-large", image.path, text, image=image.id)
        for image in records.images if training else []:
            if not len(image.boxes):
                faults.add("image-without-boxes", source, f"{image.path.name}: no boxes", image=image.id)
            if len(image.boxes) > data.max_boxes:
                text = f"{image.path.name}: {len(image.boxes)} boxes"
                faults.add("boxes-over-limit", source, text, image=image.id)
            if min(image.width, image.height) < data.min_size:
                text = f"{image.path.name}: {image.width} x {image.height}"
                faults.add("image-small", source, text, image=image.id)
        if training and records.images:
            counts = count_classes(records)
            for label in np.flatnonzero(counts == 0).tolist():
                faults.add("class-without-boxes", source, f"class {records.classes.names[label]!r:.80}")
        if training:
            _check_reach(records, data, objective)


def learned_from(split: str) -> bool:
    """Return True if a split of this name is trained on, not evaluated on."""
    return not split.lower().startswith(("val", "dev", "test"))


def count_classes(records: Records) -> np.ndarray:
    """Return (C,) numbers of boxes of each class, without crowd regions."""
    counts = np.zeros(len(records.classes), np.int64)
    for image in records.images:
        counts += np.bincount(image.labels[~image.crowd], minlength=len(counts))
    return counts


def _holds(classes: Classes, wanted: Classes) -> bool:
    pairs = set(zip(classes.ids, classes.names, strict=True))
    return pairs >= set(zip(wanted.ids, wanted.names, strict=True))


def _check_reach(records: Records, data: DataConfig, objective: ObjectiveConfig) -> None:
    large = [image for image in records.images if min(image.width, image.height) >= data.min_size]
    boxes, sizes, at = resize_boxes(replace(records, images=large), lambda size: fit_image(size, data)[0])
    items = np.concatenate([np.zeros(0, np.int64), *(image.items[~image.crowd] for image in large)])
    for i in np.flatnonzero(~levels_of(boxes, sizes, objective).any(1)).tolist():
        image = large[at[i]]
        x1, y1, x2, y2 = boxes[i].tolist()
        text = f"{image.path.name}: box {int(items[i])}, {x2 - x1:.1f} x {y2 - y1:.1f} pixels when resized"
        records.faults.add("box-no-location", records.source, text, image=image.id, item=int(items[i]))


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """What opening an image file showed."""

    kind: str | None
    """Kind of fault, None without one."""
    text: str
    """What is wrong."""
    size: tuple[int, int] | None
    """Height and width; None if the file was not opened or is unreadable."""
    digest: bytes | None
    """Hash of the file's bytes."""


def decode_images(splits: Mapping[str, Records], data: DataConfig) -> dict[str, list[ImageFile]]:
    """Open and decode every image on all cores and add its faults; return the results by split, in order.

    Images that are missing or too large according to ``check_annotations`` are not opened.
    """
    names = [name for name, records in splits.items() for _ in records.images]
    images = [image for records in splits.values() for image in records.images]
    files: dict[str, list[ImageFile]] = {name: [] for name in splits}
    found = _in_parallel(lambda image: _open(image, data), images)
    for name, image, file in zip(
        names, images, follow_iterator(found, images, "opening images"), strict=True
    ):
        files[name].append(file)
        if file.kind is not None:
            evaluated = file.kind == "size-differs" and not learned_from(name)
            kind = "size-differs-in-evaluation" if evaluated else file.kind
            splits[name].faults.add(kind, image.path, file.text, image=image.id)
    _find_doubles(splits, files)
    return files


def _open(image: ImageRecord, data: DataConfig) -> ImageFile:
    path, size, digest = image.path, None, None
    kind, text = None, ""
    if not is_file(path) or _too_large(image, data):
        return ImageFile(kind=None, text="", size=None, digest=None)
    try:
        digest = _digest(path)
        size = header_size(path, data.max_pixels, data.exif_rotation)
        height, width = size
        if max(abs(height - image.height), abs(width - image.width)) > 1:
            kind = "size-differs"
            text = f"{width} x {height} in the file, {image.width} x {image.height} in the annotations"
            if (width, height) == (image.height, image.width):
                text += "; turned by its EXIF tag? See data.exif_rotation"
        with open_image(path, data.max_pixels) as picture:
            picture.load()
    except ImageTooLarge as error:
        kind, text = "image-too-large", str(error).removeprefix(f"{path}: ")
    except UserError as error:
        kind, text = "image-unreadable", str(error).removeprefix(f"{path}: ")
    except OSError as error:
        kind, text = "image-unreadable", str(error)
    return ImageFile(kind=kind, text=text, size=size, digest=digest)


def _too_large(image: ImageRecord, data: DataConfig) -> bool:
    return image.width * image.height > data.max_pixels


def _digest(path: Path) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.digest()


def _in_parallel(function: Callable[[T], U], items: Sequence[T]) -> Iterator[U]:
    """Yield ``function(item)`` in order, computed on threads: decoding and hashing release Python's lock."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        for start in range(0, len(items), 4096):
            yield from pool.map(function, items[start : start + 4096])
    finally:
        pool.shutdown(cancel_futures=True)


def _find_doubles(splits: Mapping[str, Records], files: Mapping[str, list[ImageFile]]) -> None:
    """Report images of equal bytes, in the training split if one is in another split, else the later one."""
    order = sorted(splits, key=learned_from)  # training splits last, so that the fault is theirs
    seen: dict[bytes, tuple[str, ImageRecord]] = {}
    for name in order:
        for image, file in zip(splits[name].images, files[name], strict=True):
            if file.digest is None:
                continue
            other, known = seen.setdefault(file.digest, (name, image))
            if known is image:
                continue
            kind = "image-twice" if other == name else "in-two-splits"
            text = f"the same bytes as {known.path} (id {known.id}) of {other}"
            splits[name].faults.add(kind, image.path, text, image=image.id)


def unusable(records: Records) -> set[int]:
    """Return the ids of images that cannot be used, or are in another split or twice in this one."""
    kinds = ("image-missing", "image-unreadable", "image-too-large", "in-two-splits", "image-twice")
    return {
        fault.image
        for kind in kinds
        for fault in records.faults.kept.get(kind, [])
        if fault.image is not None
    }
