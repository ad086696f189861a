"""The built-in data set ``digits``: real handwritten digits on crops of real photographs, written as COCO.

Digits: scikit-learn's ``load_digits`` (UCI Optical Recognition of Handwritten Digits). Photographs: its two
sample images (CC BY 2.0). No download. Ten classes; heights 20 to 220 px, log-uniform, so that several
pyramid levels have objects.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from fsaf.boxes import area, intersection
from fsaf.errors import UserError

WIDTH, HEIGHT = 320, 256
"""Size of every picture in pixels."""
CLASSES = tuple("0123456789")
"""Class names; category ids in the files are 1 to 10."""
SPLITS = ("train", "val")

_FORMAT = 1  # raised when the pictures change, so that a folder of older ones is not taken for these
_MIN_SIDE, _MAX_SIDE = 21, 219  # digit heights before rounding
_MARGIN = 3  # pixels between a digit and the picture's edge
_CONTRAST = 50  # least difference in luma (0..255) between a digit and what is behind it
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_MAX_COVERED = 0.4  # share of a digit's strokes that later digits may cover
_MAX_BOX_OVERLAP = 0.5  # intersection over the smaller box
_VAL_DIGITS = 0.2  # share of digit images that only validation uses
_TRAIN_PHOTO = 0.6  # share of each photograph's width, from the left, that training crops come from
_CREDITS = [
    {"id": 1, "name": "Digits: E. Alpaydin, C. Kaynak, UCI Machine Learning Repository, CC BY 4.0"},
    {"id": 2, "name": "Photographs china.jpg and flower.jpg: flickr.com/photos/danielbuechele/6061409035 and "
     "flickr.com/photos/vultilion/6056698931, CC BY 2.0"},
]  # fmt: skip


def write_digits(folder: Path, *, train: int = 700, val: int = 150, seed: int = 0) -> Path:
    """Write the data set into ``folder``, or find it there already; returns ``folder``.

    Layout: ``annotations/train.json``, ``annotations/val.json`` (COCO), ``images/train/*.jpg`` and
    ``images/val/*.jpg``. train, val: how many pictures. The same arguments give the same files; no digit
    image and no part of a photograph is in both splits. The folder appears complete or not at all.
    Raises UserError where the folder holds anything else or cannot be written, or scikit-learn is missing.
    """
    for key, value, least in (("train", train, 1), ("val", val, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"digits: {key} = {value}: must be {least} or more")
    counts = dict(zip(SPLITS, (train, val), strict=True))
    settings = {"format": _FORMAT, "train": train, "val": val, "seed": seed}
    if _exists(folder, settings, counts):
        return folder
    source = _load_source(seed)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            complete = Path(temporary) / folder.name
            for split, count in counts.items():
                _write_split(complete, split, count, settings, source)
            if folder.exists():
                folder.rmdir()  # empty, as _exists has seen
            complete.rename(folder)
    except OSError as error:
        if folder.is_dir() and _exists(folder, settings, counts):
            return folder  # another process wrote the same set meanwhile
        raise UserError(f"digits: cannot write {str(folder)!r}: {error}; choose another folder") from error
    return folder


def _exists(folder: Path, settings: dict[str, Any], counts: dict[str, int]) -> bool:
    """Whether ``folder`` holds this very data set. False: it is absent or empty. Other contents raise."""
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
    raise UserError(f"digits: {str(folder)!r} {problem}; delete it or choose another folder")


class _Source(NamedTuple):
    """What pictures are made of."""

    digits: np.ndarray  # (1797, 10, 10) float32, 0..1, the 8x8 images with a rim of zeros
    labels: np.ndarray  # (1797,) int64
    pools: dict[str, np.ndarray]  # indices of the digit images of each split
    photos: dict[str, list[Image.Image]]  # each split's part of the photographs


def _load_source(seed: int) -> _Source:
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        raise UserError(
            "digits: the built-in data set needs scikit-learn; pip install 'fsaf[quickstart]'"
        ) from error
    bunch = load_digits()
    digits = np.pad(bunch.images.astype(np.float32) / 16, ((0, 0), (1, 1), (1, 1)))
    order = np.random.default_rng(seed).permutation(len(digits))
    held_out = round(_VAL_DIGITS * len(digits))
    photos: dict[str, list[Image.Image]] = {"train": [], "val": []}
    for pixels in load_sample_images().images:
        cut = round(_TRAIN_PHOTO * pixels.shape[1])
        photos["train"].append(Image.fromarray(pixels[:, :cut]))
        photos["val"].append(Image.fromarray(pixels[:, cut:]))
    return _Source(
        digits, bunch.target.astype(np.int64), {"train": order[held_out:], "val": order[:held_out]}, photos
    )


def _write_split(folder: Path, split: str, count: int, settings: dict[str, Any], source: _Source) -> None:
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "images" / split).mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(count):
        rng = np.random.default_rng([settings["seed"], SPLITS.index(split), index])
        placed: list[tuple[int, Box]] = []
        while not placed:
            pixels, placed = _compose(rng, source, split)
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


Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


def _compose(
    rng: np.random.Generator, source: _Source, split: str
) -> tuple[np.ndarray, list[tuple[int, Box]]]:
    """One picture (H, W, 3) uint8, and the index and box of each of its digits."""
    photos = source.photos[split]
    canvas = np.array(_background(rng, photos[rng.integers(len(photos))]), dtype=np.float32)
    owner = np.full((HEIGHT, WIDTH), -1)  # which digit's stroke is on top
    heights = np.exp(rng.uniform(np.log(_MIN_SIDE), np.log(_MAX_SIDE), rng.integers(1, 7)))
    placed: list[int] = []
    boxes: list[Box] = []
    drawn = np.zeros(0, dtype=int)  # stroke pixels of each digit, ...
    visible = np.zeros(0, dtype=int)  # ... and those that later digits leave
    for height in sorted(heights, reverse=True):
        digit = int(rng.choice(source.pools[split]))
        alpha = _draw_digit(rng, source.digits[digit], float(height))
        solid = alpha > 0.5
        h, w = alpha.shape
        if w > WIDTH - 2 * _MARGIN:
            continue
        for _ in range(12):  # tries to find a place
            x = int(rng.integers(_MARGIN, WIDTH - _MARGIN - w + 1))
            y = int(rng.integers(_MARGIN, HEIGHT - _MARGIN - h + 1))
            if any(_overlap((x, y, w, h), box) > _MAX_BOX_OVERLAP for box in boxes):
                continue
            there = owner[y : y + h, x : x + w]
            left = visible - np.bincount(there[solid & (there >= 0)], minlength=len(placed))
            if np.any(left < (1 - _MAX_COVERED) * drawn):
                continue
            patch = canvas[y : y + h, x : x + w]
            colour = _legible_colour(rng, patch)
            if colour is None:
                continue
            patch += (rng.uniform(0.85, 1.0) * alpha)[..., None] * (colour - patch)
            there[solid] = len(placed)
            drawn, visible = np.append(drawn, solid.sum()), np.append(left, solid.sum())
            placed.append(digit)
            boxes.append((x, y, w, h))
            break
    if rng.random() < 0.5:
        canvas += rng.uniform(1, 6) * rng.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32)
    pixels = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
    return pixels, [(digit, _visible_box(owner == i)) for i, digit in enumerate(placed)]


def _visible_box(mask: np.ndarray) -> Box:
    """Tight box of a mask's true pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y


def _overlap(a: Box, b: Box) -> float:
    """Return intersection over the smaller area of two boxes x, y, width, height."""
    first, second = ((x, y, x + w, y + h) for x, y, w, h in (a, b))
    return float(intersection(first, second) / min(area(first), area(second)))


def _draw_digit(rng: np.random.Generator, digit: np.ndarray, height: float) -> np.ndarray:
    """Opacity 0..1 of one digit, cut to its strokes: (h, w) with h close to ``height`` pixels."""
    turn, slant, widen = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(-0.15, 0.15), rng.uniform(0.8, 1.2)
    warp = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    warp = warp @ np.array([[1, slant], [0, 1]]) @ np.diag([widen, 1])
    image = Image.fromarray(digit)
    level = rng.uniform(0.38, 0.46)  # lower closes the loops of 6, 8 and 9, higher breaks thin strokes
    trial = _enlarge(image, 8 * warp)  # shows how tall the turned digit comes out
    scale = 8 * float(height) / _visible_box(trial > level)[3]
    edge = min(1.2 / scale, 0.35)  # about two pixels of the result, whatever its size
    t = np.clip((_enlarge(image, scale * warp) - level) / edge + 0.5, 0, 1)
    alpha = t * t * (3 - 2 * t)
    x, y, w, h = _visible_box(alpha > 0.5)
    return alpha[y : y + h, x : x + w]


def _enlarge(image: Image.Image, forward: np.ndarray) -> np.ndarray:
    """A digit under the 2x2 map ``forward`` about its centre, in one smooth step; all of it is inside."""
    side = int(np.ceil(1.3 * image.width * np.sqrt(np.abs(np.linalg.det(forward)))))
    back = np.linalg.inv(forward)
    shift = np.array([image.width, image.height]) / 2 - back @ np.array([side, side]) / 2
    data = (*back[0], shift[0], *back[1], shift[1])
    return np.asarray(image.transform((side, side), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC))


def _legible_colour(rng: np.random.Generator, patch: np.ndarray) -> np.ndarray | None:
    """A random colour that stands out from nearly all of the patch, or None if no try does."""
    step = 1 + len(patch) // 32  # a sample of a large patch will do
    low, high = np.quantile(patch[::step, ::step] @ _LUMA, (0.05, 0.95))
    for _ in range(8):
        colour = _colour(rng)
        if not low - _CONTRAST < colour @ _LUMA < high + _CONTRAST:
            return colour
    return None


def _colour(rng: np.random.Generator) -> np.ndarray:
    """Random RGB, 0..255, over the whole range of hues, mostly strong or light or dark."""
    hue = np.abs((rng.random() * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    saturation, value = rng.random(), rng.uniform(0.05, 1) ** 0.7
    return (255 * value * (1 - saturation + saturation * np.clip(hue, 0, 1))).astype(np.float32)


def _background(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """A crop of ``photo`` with changed light, and clutter drawn on it."""
    ratio = HEIGHT / WIDTH
    width = rng.uniform(0.6, 1) * min(photo.width, photo.height / ratio)
    x, y = rng.uniform(0, photo.width - width), rng.uniform(0, photo.height - width * ratio)
    box = (x, y, x + width, y + width * ratio)
    image = photo.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box=box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    gain, offset = rng.uniform(0.8, 1.15, 3) * rng.uniform(0.6, 1.1), rng.uniform(-20, 30)
    table = np.clip(np.arange(256) * gain[:, None] + offset, 0, 255).astype(np.uint8)
    image = image.point(table.reshape(-1).tolist())
    # Clutter is drawn at twice the size and halved, which smooths its edges.
    shapes = Image.new("RGBA", (2 * WIDTH, 2 * HEIGHT))
    draw = ImageDraw.Draw(shapes)
    for _ in range(rng.integers(0, 7)):
        _clutter(rng, draw)
    small = shapes.reduce(2)
    image.paste(small, mask=small)
    return image


def _clutter(rng: np.random.Generator, draw: ImageDraw.ImageDraw) -> None:
    """One shape that no one reads as a digit: no upright strokes, no upright rings."""
    fill = tuple(int(v) for v in _colour(rng))
    centre = rng.uniform((0, 0), (2 * WIDTH, 2 * HEIGHT))
    size = np.exp(rng.uniform(np.log(20), np.log(240)))
    line = int(rng.integers(3, 15))
    kind = rng.integers(5)
    if kind == 0:  # a line, flat or slanting
        angle = rng.uniform(-0.9, 0.9)
        reach = size * np.array([np.cos(angle), np.sin(angle)])
        draw.line(_points(np.stack([centre - reach, centre + reach])), fill, line)
    elif kind == 1:  # a disc or flat ellipse, filled
        reach = size / 2 * np.array([1, rng.uniform(0.4, 1)])
        draw.ellipse(_points(np.stack([centre - reach, centre + reach])), fill)
    elif kind == 2:  # a bar, filled
        reach = size / 2 * np.array([1, rng.uniform(0.3, 0.8)])
        draw.rectangle(_points(np.stack([centre - reach, centre + reach])), fill)
    elif kind == 3:  # a polygon
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 6)))
        corners = centre + size / 2 * np.stack([np.cos(angles), np.sin(angles)], 1)
        draw.polygon(_points(corners), fill)
    else:  # a wavy scribble, longer than tall
        x = np.linspace(-1, 1, 60)
        waves = rng.uniform(3, 12, (3, 1)) * x + rng.uniform(0, 2 * np.pi, (3, 1))
        walk = np.stack([x, 0.25 * rng.uniform(0.2, 1, 3) @ np.sin(waves)], 1)
        draw.line(_points(centre + size / 2 * walk), fill, line, joint="curve")


def _points(corners_n2: np.ndarray) -> Sequence[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in corners_n2]
