"""Find images that are in a data set twice: files of equal bytes, and the same picture saved again."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from fsaf.checking.images import ImageFile
from fsaf.checking.roles import Roles
from fsaf.data.records import ImageRecord, Records

_NEAR = 3.0
"""Mean difference, in grey levels, of small pictures that are taken for the same picture."""
_PLAIN = 4.0
"""Standard deviation of a small picture below which it shows too little to be compared."""
_BANDS = 4
"""Parts of a picture's hash; pictures are compared if one part is equal."""
_MOST = 50
"""Comparisons of a picture within one part, to bound the time for sets of very similar pictures."""


def add_doubles(
    splits: Mapping[str, Records], files: Mapping[str, list[ImageFile]], roles: Roles
) -> str | None:
    """Add the faults of images that are there twice; return a note if training and evaluation are the same.

    Of an image in two splits the training split has the fault, so that removing it there mends it. If that
    would leave nothing to train on, the splits are the same on purpose, and there is a note instead.
    """
    used = [name for name in splits if name in roles.used] or list(splits)
    order = sorted(used, key=lambda name: name == roles.train)  # training last: the fault is the later one's
    seen: dict[bytes, tuple[str, ImageRecord]] = {}
    twice: dict[str, list[tuple[ImageRecord, str]]] = defaultdict(list)
    across: list[tuple[str, ImageRecord, str]] = []
    for name in order:
        for image, file in zip(splits[name].images, files[name], strict=True):
            if file.digest is None:
                continue
            other, known = seen.setdefault(file.digest, (name, image))
            if known is image:
                continue
            same = "the same file" if known.path == image.path else f"the same bytes as {known.path}"
            text = f"{same} (id {known.id}) of {other}"
            if other == name:
                twice[name].append((image, text))
            else:
                across.append((name, image, text))
    for name, images in twice.items():
        for image, text in images:
            splits[name].faults.add("image-twice", image.path, text, image=image.id)
    if roles.train and across:
        lost = {image.id for _, image, _ in across}
        if not any((~image.crowd).any() for image in splits[roles.train].images if image.id not in lost):
            return (
                f"{roles.val} has the images of {roles.train} ({len(across):,} in both), so evaluation shows "
                "how well they were memorised"
            )
    for name, image, text in across:
        splits[name].faults.add("in-two-splits", image.path, text, image=image.id)
    if roles.train and roles.val:
        exact = {image.id for _, image, _ in across}
        _add_near(splits, files, roles.train, roles.val, exact)
    return None


def _add_near(
    splits: Mapping[str, Records], files: Mapping[str, list[ImageFile]], train: str, val: str, exact: set[int]
) -> None:
    """Add a fault for each image of ``train`` that is an image of ``val``, saved again."""
    buckets: dict[tuple[int, bytes], list[tuple[Path, ImageFile]]] = defaultdict(list)
    for image, file in zip(splits[val].images, files[val], strict=True):
        for key in _keys(file):
            buckets[key].append((image.path, file))
    for image, file in zip(splits[train].images, files[train], strict=True):
        if image.id in exact:
            continue
        candidates = [each for key in _keys(file) for each in buckets.get(key, [])[:_MOST]]
        for path, other in candidates:
            if _difference(file, other) < _NEAR:
                text = f"nearly the picture of {path} of {val}"
                splits[train].faults.add("nearly-in-two-splits", image.path, text, image=image.id)
                break


def _keys(file: ImageFile) -> Iterator[tuple[int, bytes]]:
    """Yield the parts of a picture's hash: which pixels of an 8 x 8 copy are brighter than the next."""
    if file.thumb is None or file.thumb.std() < _PLAIN:
        return
    side = file.thumb.shape[0] // 2
    small = file.thumb.reshape(side, 2, side, 2).mean((1, 3))
    bits = np.packbits(small > np.roll(small, -1, 1))
    for i, part in enumerate(np.split(bits, _BANDS)):
        yield i, part.tobytes()


def _difference(one: ImageFile, other: ImageFile) -> float:
    if one.thumb is None or other.thumb is None or one.size is None or other.size is None:
        return np.inf
    (h, w), (height, width) = one.size, other.size
    if abs(h * width - w * height) > 0.03 * w * height:
        return np.inf  # another ratio: not the same picture
    return float(np.abs(one.thumb.astype(np.int16) - other.thumb).mean())
