"""Decide for a split whether its boxes refer to stored pictures, or to those rotated by their EXIF tags."""

import os
from concurrent.futures import ThreadPoolExecutor

from fsaf.config import DataConfig
from fsaf.data.decode import read_header
from fsaf.data.exif import is_turned
from fsaf.data.records import ImageRecord, Records
from fsaf.errors import UserError

SAMPLE = 1000
"""Number of images whose tags are read before training."""


def settle_rotation(records: Records, data: DataConfig) -> None:
    """Set ``records.turned`` by the sizes that the annotations record, from a sample of the images.

    A size that is the rotated picture's shows that the rotated picture was labelled. The majority decides for
    images whose own size does not tell; each other image is read by its own. Nothing is changed if the config
    decides, or if the sizes were measured.
    """
    if counted := records.faults.counts["exif-rotated"]:  # YOLO: reading has opened each image
        why = "labels record no sizes" if data.exif_rotation is None else "data.exif_rotation says so"
        records.notes.append(_note(records, counted, len(records.images), why))
    if data.exif_rotation is not None or records.measured:
        return
    votes = 0
    tagged = 0
    images = records.images[:: max(1, len(records.images) // SAMPLE)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for turned in pool.map(lambda image: _vote(image, data), images):
            tagged += turned is not None
            votes += turned or 0
    if votes:
        records.turned = votes > 0
    if tagged and not records.faults.counts["exif-rotated"]:
        why = "the sizes in the annotations say so" if votes else "nothing in the annotations tells"
        records.notes.append(_note(records, tagged, len(images), why))


def _vote(image: ImageRecord, data: DataConfig) -> int | None:
    """Return 1 if the recorded size is the rotated picture's, -1 if the stored one's, 0 if neither; None
    without a tag."""
    try:
        stored, tag = read_header(image.path, data.max_pixels)
    except UserError:
        return None
    if tag == 1:
        return None
    recorded = (image.height, image.width)
    if is_turned(recorded, stored, tag, False) != is_turned(recorded, stored, tag, True):
        return 0
    return 1 if is_turned(recorded, stored, tag, False) else -1


def _note(records: Records, tagged: int, images: int, why: str) -> str:
    """Return a sentence on the rotation tags of a split and what boxes are taken to refer to."""
    which = "rotated" if records.turned else "stored"
    return (
        f"{tagged:,} of {images:,} images have an EXIF rotation tag; boxes refer to the {which} pictures "
        f"({why}; data.exif_rotation overrides)"
    )
