"""Compose the pictures of the data set ``digits``: digit images drawn on changed crops of photographs.

Heights of digits are 20 to 220 px, log-uniform, so that objects fall on several pyramid levels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from fsaf.boxes import area, intersection

WIDTH, HEIGHT = 320, 256
"""Size of each picture in pixels."""

_MIN_SIDE, _MAX_SIDE = 21, 219  # digit heights before rounding
_MARGIN = 3  # least distance of a digit from the picture's edge in pixels
_CONTRAST = 50  # least difference in luma (0..255) between a digit and its background
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_MAX_COVERED = 0.4  # share of a digit's strokes that later digits may cover
_MAX_BOX_OVERLAP = 0.5  # intersection over the smaller box

Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


class Source(NamedTuple):
    """Digit images and photographs that pictures are composed of."""

    digits: np.ndarray
    """(1797, 10, 10) float32, 0..1: the 8 x 8 images, padded with zeros."""
    labels: np.ndarray
    """(1797,) int64."""
    pools: dict[str, np.ndarray]
    """Indices of the digit images of each split."""
    photos: dict[str, list[Image.Image]]
    """Each split's part of the photographs."""


def compose_picture(
    rng: np.random.Generator, source: Source, split: str
) -> tuple[np.ndarray, list[tuple[int, Box]]]:
    """Compose one picture: return (H, W, 3) uint8, and the index and box of each of its digits."""
    photos = source.photos[split]
    canvas = np.array(_background(rng, photos[rng.integers(len(photos))]), dtype=np.float32)
    owner = np.full((HEIGHT, WIDTH), -1)  # the digit whose stroke is on top
    heights = np.exp(rng.uniform(np.log(_MIN_SIDE), np.log(_MAX_SIDE), rng.integers(1, 7)))
    placed: list[int] = []
    boxes: list[Box] = []
    drawn = np.zeros(0, dtype=int)  # stroke pixels of each digit
    visible = np.zeros(0, dtype=int)  # stroke pixels that later digits leave uncovered
    for height in sorted(heights, reverse=True):
        digit = int(rng.choice(source.pools[split]))
        alpha = _draw_digit(rng, source.digits[digit], float(height))
        solid = alpha > 0.5
        h, w = alpha.shape
        if w > WIDTH - 2 * _MARGIN:
            continue
        for _ in range(12):  # tries
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
    """Return the tight box of a mask's true pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y


def _overlap(a: Box, b: Box) -> float:
    """Return the intersection over the smaller area of two boxes x, y, width, height."""
    first, second = ((x, y, x + w, y + h) for x, y, w, h in (a, b))
    return float(intersection(first, second) / min(area(first), area(second)))


def _draw_digit(rng: np.random.Generator, digit: np.ndarray, height: float) -> np.ndarray:
    """Return the opacity 0..1 of one digit, cropped to its strokes: (h, w) with h close to ``height``."""
    turn, slant, widen = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(-0.15, 0.15), rng.uniform(0.8, 1.2)
    warp = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    warp = warp @ np.array([[1, slant], [0, 1]]) @ np.diag([widen, 1])
    image = Image.fromarray(digit)
    level = rng.uniform(0.38, 0.46)  # lower closes the loops of 6, 8 and 9, higher breaks thin strokes
    trial = _enlarge(image, 8 * warp)  # to measure the height of the turned digit
    scale = 8 * float(height) / _visible_box(trial > level)[3]
    edge = min(1.2 / scale, 0.35)  # about two pixels of the result at any size
    t = np.clip((_enlarge(image, scale * warp) - level) / edge + 0.5, 0, 1)
    alpha = t * t * (3 - 2 * t)
    x, y, w, h = _visible_box(alpha > 0.5)
    return alpha[y : y + h, x : x + w]


def _enlarge(image: Image.Image, forward: np.ndarray) -> np.ndarray:
    """Return a digit under the 2x2 map ``forward`` about its centre, large enough to hold all of it."""
    side = int(np.ceil(1.3 * image.width * np.sqrt(np.abs(np.linalg.det(forward)))))
    back = np.linalg.inv(forward)
    shift = np.array([image.width, image.height]) / 2 - back @ np.array([side, side]) / 2
    data = (*back[0], shift[0], *back[1], shift[1])
    return np.asarray(image.transform((side, side), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC))


def _legible_colour(rng: np.random.Generator, patch: np.ndarray) -> np.ndarray | None:
    """Return a random colour that differs from nearly all of the patch, or None after eight tries."""
    step = 1 + len(patch) // 32  # subsample large patches
    low, high = np.quantile(patch[::step, ::step] @ _LUMA, (0.05, 0.95))
    for _ in range(8):
        colour = _colour(rng)
        if not low - _CONTRAST < colour @ _LUMA < high + _CONTRAST:
            return colour
    return None


def _colour(rng: np.random.Generator) -> np.ndarray:
    """Return random RGB, 0..255, of any hue, mostly strong, light or dark."""
    hue = np.abs((rng.random() * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    saturation, value = rng.random(), rng.uniform(0.05, 1) ** 0.7
    return (255 * value * (1 - saturation + saturation * np.clip(hue, 0, 1))).astype(np.float32)


def _background(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """Return a crop of ``photo`` with changed brightness and clutter drawn on it."""
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
    # Draw clutter at twice the size and halve it, to smooth the edges.
    shapes = Image.new("RGBA", (2 * WIDTH, 2 * HEIGHT))
    draw = ImageDraw.Draw(shapes)
    for _ in range(rng.integers(0, 7)):
        _clutter(rng, draw)
    small = shapes.reduce(2)
    image.paste(small, mask=small)
    return image


def _clutter(rng: np.random.Generator, draw: ImageDraw.ImageDraw) -> None:
    """Draw one shape unlike a digit: no upright stroke, no upright ring."""
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
