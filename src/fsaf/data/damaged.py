"""Look for damaged images before training."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from fsaf.config import DataConfig
from fsaf.data.decode import ImageTooLarge, begins_like_image, open_image
from fsaf.data.progress import follow_iterator
from fsaf.data.records import ImageRecord, Records
from fsaf.errors import DataError, UserError

_REMEDY = (
    "restore it, set data.on_bad_image to skip or accept, or have `fsaf check DATA --fix OUT` leave it out"
)


def settle_damaged(records: Records, data: DataConfig) -> Records:
    """Return the split without damaged images, or with them, as ``data.on_bad_image`` says.

    refuse: raise UserError if a file is damaged that lacks the mark at its end. accept: count these. skip:
    decode every image and leave out those that do not decode.
    """
    skip = data.on_bad_image == "skip"
    gone: set[int] = set()
    for position, error in _find(records.images, data, every=skip):
        image = records.images[position]
        text = str(error).removeprefix(f"{image.path}: ")
        if skip:
            gone.add(position)
            records.faults.add("image-skipped", image.path, text, image=image.id, boxes=len(image.boxes))
        elif data.on_bad_image == "accept" and decodes_in_part(image.path, data):
            records.faults.add("image-cut-short", image.path, text, image=image.id)
        else:
            records.faults.add("image-unreadable", image.path, f"{text}; {_REMEDY}", image=image.id)
    if not gone:
        return records
    keep = [position for position in range(len(records.images)) if position not in gone]
    if not keep:
        raise DataError(f"{records.source}: none of its images decodes")
    table = None if records.table is None else records.table.pick(keep)
    return replace(records, images=[records.images[i] for i in keep], table=table)


def decodes_in_part(path: Path, data: DataConfig) -> bool:
    """Return True if a damaged file shows something when it is accepted as it is."""
    try:
        with open_image(path, data.max_pixels, cut_short=True):
            return True
    except UserError:
        return False


def _find(images: list[ImageRecord], data: DataConfig, every: bool) -> Iterator[tuple[int, UserError]]:
    """Yield position and error of images that do not decode. every: look also at files whose end is there."""

    def look(image: ImageRecord) -> UserError | None:
        try:
            if every or is_suspicious(image.path):
                with open_image(image.path, data.max_pixels) as picture:
                    picture.load()
        except ImageTooLarge:
            return None
        except UserError as error:
            return error
        return None

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = follow_iterator(pool.map(look, images), images, "looking for damaged images")
        for position, error in enumerate(found):
            if error is not None and images[position].path.exists():
                yield position, error


def is_suspicious(path: Path) -> bool:
    """Return True if a file is no image, or a JPEG, PNG or WebP without the mark at its end.

    Most such files do not decode, but some do.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 12))
            tail = file.read()
    except OSError:
        return False
    if head.startswith(b"\xff\xd8\xff"):
        return not tail.endswith(b"\xff\xd9")
    if head.startswith(b"\x89PNG"):
        return b"IEND" not in tail
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return int.from_bytes(head[4:8], "little") + 8 > size
    return not begins_like_image(head)
