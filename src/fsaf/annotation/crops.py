"""Detections cut out of their pictures, one file each, in a folder for each class."""

import math
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from fsaf.detection.detector import Result
from fsaf.errors import UserError

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def folder_names(names: Sequence[str]) -> list[str]:
    """A folder name for each class, that every file system takes and that no other class has.

    Letters of any script stay, what is special somewhere becomes ``_``. Names that are then the same, upper
    and lower case alike, get the class's number.
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
    """Whether every file system takes a letter; many scripts write vowels as marks (category M)."""
    return letter.isalnum() or letter in " _.()+,=@#&'-" or unicodedata.category(letter).startswith("M")


class Crops:
    """Writes ``FOLDER/CLASS/PLACE_000.png``, numbered as the detections of a result are."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, folder_names(names)

    def save(self, image: np.ndarray, result: Result, place: PurePath) -> None:
        """image: (H, W, 3) uint8 RGB that ``result`` is of. Boxes are widened to whole pixels.

        Raises UserError where a file cannot be written.
        """
        height, width = image.shape[:2]
        for number, (box, label) in enumerate(zip(result.boxes.tolist(), result.labels, strict=True)):
            left = min(max(math.floor(box[0]), 0), width - 1)
            top = min(max(math.floor(box[1]), 0), height - 1)
            right, bottom = max(math.ceil(box[2]), left + 1), max(math.ceil(box[3]), top + 1)
            path = self.folder / self.names[label] / place.parent / f"{place.name}_{number:03d}.png"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right])).save(path)
            except OSError as error:
                raise UserError(f"{path}: cannot be written ({error}); give another --out") from error
