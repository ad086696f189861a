"""Open and decode every image of a data set: what its file holds, and what is wrong with it."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from fsaf.checking.roles import Roles
from fsaf.config import DataConfig
from fsaf.data.damaged import decodes_in_part
from fsaf.data.decode import ImageTooLarge, fault_kind, is_file, open_image
from fsaf.data.exif import is_turned, orientation, same_ratio, turned_size
from fsaf.data.progress import follow_iterator
from fsaf.data.records import ImageRecord, Records, is_trained_on
from fsaf.errors import UserError

THUMB = 16
"""Side of the grey pictures that images are compared by."""
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """Result of opening an image file."""

    kind: str | None = None
    """Kind of fault, None without one."""
    text: str = ""
    """The fault."""
    stored: tuple[int, int] | None = None
    """Height and width of the stored picture; None if the file was not opened or is unreadable."""
    tag: int = 1
    """EXIF rotation tag, 1 without one."""
    turned: bool = False
    """Boxes refer to the picture rotated by the tag."""
    digest: bytes | None = None
    """Hash of the file's bytes."""
    thumb: np.ndarray | None = None
    """(THUMB, THUMB) uint8: the picture in grey, to compare it with others."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the picture that boxes refer to."""
        if self.stored is None:
            return None
        return turned_size(self.stored, self.tag) if self.turned else self.stored


def decode_images(
    splits: Mapping[str, Records], data: DataConfig, roles: Roles
) -> dict[str, list[ImageFile]]:
    """Open and decode every image on all cores and add its faults; return the results by split, in order.

    Images that are missing or too large according to ``check_annotations`` are not opened.
    """
    jobs = [(name, image) for name, records in splits.items() for image in records.images]
    files: dict[str, list[ImageFile]] = {name: [] for name in splits}
    opened = _in_parallel(lambda job: _open(job[1], splits[job[0]], data), jobs)
    for (name, image), file in zip(jobs, follow_iterator(opened, jobs, "opening images"), strict=True):
        files[name].append(file)
        faults = splits[name].faults
        if file.tag != 1 and not splits[name].measured:  # measuring has counted it already
            text = f"tag {file.tag}: boxes refer to the {'rotated' if file.turned else 'stored'} picture"
            faults.add("exif-rotated", image.path, text, image=image.id)
        if file.kind is not None:
            kind, used = file.kind, name == roles.train and is_trained_on(image, data)
            if kind == "size-differs" and not used:
                kind = "size-differs-unused"
            elif kind in ("image-unreadable", "image-too-large") and name == roles.train and not used:
                kind = "image-unused"
            faults.add(kind, image.path, file.text, image=image.id)
    return files


def _open(image: ImageRecord, records: Records, data: DataConfig) -> ImageFile:
    path = image.path
    if not is_file(path) or image.width * image.height > data.max_pixels:
        return ImageFile()
    stored, tag, turned, thumb = None, 1, False, None
    kind, text = None, ""
    digest = None
    try:
        content = path.read_bytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        with open_image(path, data.max_pixels, content) as picture:
            stored, tag = (picture.height, picture.width), orientation(picture)
            recorded = (image.height, image.width)
            if data.exif_rotation is None:
                turned = is_turned(recorded, stored, tag, records.turned)
            else:
                turned = data.exif_rotation and tag != 1
            kind, text = _compare(recorded, turned_size(stored, tag) if turned else stored)
            picture.load()
            thumb = _shrink(picture)
    except ImageTooLarge as error:
        kind, text, stored = "image-too-large", str(error).removeprefix(f"{path}: "), None
    except UserError as error:
        kind, text = (
            fault_kind(path, error, data.on_bad_image == "skip"),
            str(error).removeprefix(f"{path}: "),
        )
        if data.on_bad_image == "accept" and decodes_in_part(path, data):
            kind = "image-cut-short"
        else:
            stored = None
    except OSError as error:
        kind, text, stored = "image-unreadable", str(error), None
    return ImageFile(kind=kind, text=text, stored=stored, tag=tag, turned=turned, digest=digest, thumb=thumb)


def _compare(recorded: tuple[int, int], size: tuple[int, int]) -> tuple[str | None, str]:
    """Return the fault of an image whose annotations record another size."""
    (height, width), (h, w) = size, recorded
    if max(abs(height - h), abs(width - w)) <= 1:
        return None, ""
    text = f"{width} x {height} in the file, {w} x {h} in the annotations"
    if same_ratio(size, recorded):
        text += f": scaled by {width / w:.3g}"
    return "size-differs", text


def _shrink(picture: Image.Image) -> np.ndarray:
    """Return a small grey copy of a decoded picture; blank for 16-bit and float pixels."""
    if picture.mode[0] in "IF":
        return np.zeros((THUMB, THUMB), np.uint8)
    factor = max(1, min(picture.size) // (4 * THUMB))
    small = picture.reduce(factor) if factor > 1 and picture.mode in ("RGB", "L") else picture
    if small.mode not in ("L", "RGB"):
        small = small.convert("RGB")  # as training does; not every mode converts to grey
    grey = small.convert("L") if small.mode != "L" else small
    return np.asarray(grey.resize((THUMB, THUMB), Image.Resampling.BOX))


def _in_parallel(function: Callable[[T], U], items: Sequence[T]) -> Iterator[U]:
    """Yield ``function(item)`` in order, computed on threads: decoding and hashing release Python's lock."""
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        for start in range(0, len(items), 4096):
            yield from pool.map(function, items[start : start + 4096])
    finally:
        pool.shutdown(cancel_futures=True)
