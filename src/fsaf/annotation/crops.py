"""Crops: each detection as a picture file of its own, in a folder for its class."""

import math
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from fsaf.detection.result import Result
from fsaf.files import whole

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def folder_names(names: Sequence[str]) -> list[str]:
    """Return a folder name for each class: valid on every file system, and different from all others.

    Letters of any script stay; characters that are special on some system become ``_``. Names that are then
    equal, ignoring case, get the number of the class.
    """
    safe, taken = [], set()
    for label, name in enumerate(names):
        letters = unicodedata.normalize("NFC", name)  # as macOS compares them
        text = "".join(letter if _is_safe(letter) else "_" for letter in letters).strip(" .")
        while len(text.encode()) > 100:
            text = text[:-1]
        text = text.strip(" .") or "_"
        if _RESERVED.fullmatch(text):
            text += "_"
        if text.casefold() in taken:
            text = f"{text}-{label}"
        while text.casefold() in taken:
            text += "_"
        taken.add(text.casefold())
        safe.append(text)
    return safe


def _is_safe(letter: str) -> bool:
    """Return True if a letter is valid on every file system; category M has vowels of many scripts."""
    return letter.isalnum() or letter in " _.()+,=@#&'-" or unicodedata.category(letter).startswith("M")


class Crops:
    """Write crops as ``FOLDER/CLASS/PLACE_000.png``, numbered in the order of a result's detections."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, folder_names(names)

    def save(self, image: np.ndarray, result: Result, place: PurePath) -> None:
        """Write the crops of one result, with boxes widened to whole pixels.

        image: (H, W, 3) uint8 RGB, the picture of ``result``. place: path of the picture in the output
        folder, without suffix. Raises WriteError if a file cannot be written.
        """
        height, width = image.shape[:2]
        for number, (box, label) in enumerate(zip(result.boxes.tolist(), result.labels, strict=True)):
            left = min(max(math.floor(box[0]), 0), width - 1)
            top = min(max(math.floor(box[1]), 0), height - 1)
            right, bottom = max(math.ceil(box[2]), left + 1), max(math.ceil(box[3]), top + 1)
            path = self.folder / self.names[label] / place.parent / f"{place.name}_{number:03d}.png"
            with whole(path) as draft:
                Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right])).save(draft, "PNG")
