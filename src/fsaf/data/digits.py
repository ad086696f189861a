"""The built-in data set ``digits``: handwritten digits on crops of photographs, written as COCO JSON.

Digits: scikit-learn's ``load_digits`` (UCI Optical Recognition of Handwritten Digits). Photographs: its two
sample images (CC BY 2.0). Nothing is downloaded. Ten classes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fsaf.data.digit_pictures import HEIGHT, WIDTH, Box, Source, compose_picture
from fsaf.errors import DataError, UserError, WriteError
from fsaf.files import whole_folder

CLASSES = tuple("0123456789")
"""Class names; category ids in the files are 1 to 10."""
SPLITS = ("train", "val")

_FORMAT = 1  # raise it when the pictures change, so that a folder of older pictures is not reused
_VAL_DIGITS = 0.2  # share of digit images that only validation uses
_TRAIN_PHOTO = 0.6  # share of each photograph's width, from the left, that training crops come from
_CREDITS = [
    {"id": 1, "name": "Digits: E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, CC BY 4.0"},
    {"id": 2, "name": "Photographs china.jpg and flower.jpg: flickr.com/photos/danielbuechele/6061409035 and "
     "flickr.com/photos/vultilion/6056698931, CC BY 2.0"},
]  # fmt: skip


def write_digits(
    folder: Path, *, train: int = 700, val: int = 150, seed: int = 0, within_train: bool = False
) -> Path:
    """Write the data set into ``folder``, or reuse it if it exists; return ``folder``.

    Layout: ``annotations/train.json``, ``annotations/val.json`` (COCO), ``images/train/*.jpg`` and
    ``images/val/*.jpg``. train, val: numbers of pictures. The same arguments write the same files. The splits
    share no digit image and no part of a photograph. The folder appears complete or not at all.
    within_train: make both splits of what the training split is made of otherwise, to choose settings without
    the validation split.
    Raises UserError if the folder holds anything else or cannot be written, or scikit-learn is missing.
    """
    for key, value, least in (("train", train, 1), ("val", val, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"digits: {key} = {value}: must be {least} or more")
    counts = dict(zip(SPLITS, (train, val), strict=True))
    settings = {"format": _FORMAT, "train": train, "val": val, "seed": seed}
    if within_train:
        settings["within_train"] = True
    if _exists(folder, settings, counts):
        return folder
    source = _load_source(seed, within_train)
    try:
        with whole_folder(folder) as draft:
            for split, count in counts.items():
                _write_split(draft, split, count, settings, source)
    except WriteError:
        if not folder.is_dir() or not _exists(folder, settings, counts):
            raise
        # Another process has written the same set meanwhile.
    return folder


def _exists(folder: Path, settings: dict[str, Any], counts: dict[str, int]) -> bool:
    """Return True if ``folder`` holds this data set, False if it is absent or empty; else raise UserError."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    problem = "holds something else"
    try:
        for split, count in counts.items():
            found = json.loads((folder / "annotations" / f"{split}.json").read_text(encoding="utf-8"))
            if found["info"]["settings"] != settings:
                problem = f"holds digits of other settings ({found['info']['settings']}, not {settings})"
                break
            names = {image["file_name"] for image in found["images"]}
            present = {path.name for path in (folder / "images" / split).iterdir()}
            if len(names) != count or not names <= present:
                problem = f"lacks some of its images ({split})"
                break
        else:
            return True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(f"digits: {str(folder)!r} {problem}; delete it or choose another folder")


def _load_source(seed: int, within_train: bool = False) -> Source:
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        raise DataError(
            "digits: the built-in data set needs scikit-learn; pip install 'fsaf[quickstart]'"
        ) from error
    bunch = load_digits()
    digits = np.pad(bunch.images.astype(np.float32) / 16, ((0, 0), (1, 1), (1, 1)))
    order = np.random.default_rng(seed).permutation(len(digits))
    photos = [(pixels, 0, pixels.shape[1]) for pixels in load_sample_images().images]
    order, val, photos, val_photos = _divide(order, photos)
    if within_train:
        order, val, photos, val_photos = _divide(order, photos)
    parts = {"train": photos, "val": val_photos}
    return Source(
        digits,
        bunch.target.astype(np.int64),
        {"train": order, "val": val},
        {split: [Image.fromarray(each[:, a:b]) for each, a, b in cuts] for split, cuts in parts.items()},
    )


_Cut = tuple[np.ndarray, int, int]
"""A photograph, and the columns of it that are used: from and to."""


def _divide(order: np.ndarray, photos: list[_Cut]) -> tuple[np.ndarray, np.ndarray, list[_Cut], list[_Cut]]:
    """Divide digit images and photographs into those of training and those of validation."""
    held_out = round(_VAL_DIGITS * len(order))
    left, right = [], []
    for pixels, start, end in photos:
        cut = start + round(_TRAIN_PHOTO * (end - start))
        left.append((pixels, start, cut))
        right.append((pixels, cut, end))
    return order[held_out:], order[:held_out], left, right


def _write_split(folder: Path, split: str, count: int, settings: dict[str, Any], source: Source) -> None:
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "images" / split).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        rng = np.random.default_rng([settings["seed"], SPLITS.index(split), index])
        placed: list[tuple[int, Box]] = []
        while not placed:
            pixels, placed = compose_picture(rng, source, split)
        name = f"{index + 1:06d}.jpg"
        Image.fromarray(pixels).save(folder / "images" / split / name, quality=92)
        images.append({"id": index + 1, "file_name": name, "width": WIDTH, "height": HEIGHT})
        for digit, (x, y, w, h) in placed:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index + 1,
                    "category_id": int(source.labels[digit]) + 1,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "digit": digit,  # index in load_digits
                }
            )
    coco = {
        "info": {"description": f"fsaf digits, {split}", "settings": settings},
        "licenses": _CREDITS,
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
        "images": images,
        "annotations": annotations,
    }
    (folder / "annotations" / f"{split}.json").write_text(json.dumps(coco), encoding="utf-8")
