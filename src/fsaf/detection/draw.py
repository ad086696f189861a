"""Pictures of detections: boxes with captions that stay legible at any size and on any background.

Every line and caption is drawn in the colour of its class over a dark edge, so that it shows on light, dark
and busy ground alike. Sizes follow the picture's.
"""

import colorsys
import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from fsaf.boxes import intersection
from fsaf.data.arrays import to_array

if TYPE_CHECKING:
    from torch import Tensor

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Color = tuple[int, int, int]
Area = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are not part of it."""

PALETTE: tuple[Color, ...] = (
    (33, 163, 255), (214, 137, 0), (52, 253, 124), (125, 48, 244), (230, 250, 0),
    (180, 65, 42), (149, 230, 255), (165, 35, 159), (136, 255, 205), (145, 77, 105),
)  # fmt: skip
"""First colours of classes, chosen to be as different as can be for colour-blind eyes too: at least 30 apart
in CIE L*a*b* as seen with normal sight, protanopia and deuteranopia."""

MAX_CAPTION = 300
"""Maximum number of letters in a caption."""

_EDGE = (16, 16, 16)
_WIDE_FONTS = ("NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "msyh.ttc", "DejaVuSans.ttf")


def class_color(label: int) -> Color:
    """Return the colour of a class, which does not depend on the picture.

    The first ten come from ``PALETTE``; further ones step through the hues by the golden angle and through
    three lightnesses.
    """
    if label < len(PALETTE):
        return PALETTE[label]
    hue = (label * 0.6180339887) % 1
    red, green, blue = colorsys.hls_to_rgb(hue, (0.60, 0.45, 0.75)[label % 3], 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_result(
    image: "Image.Image | np.ndarray | Tensor",
    boxes: "ArrayLike | Tensor",
    labels: "ArrayLike | Tensor",
    scores: "ArrayLike | Tensor | None" = None,
    names: Sequence[str] | None = None,
    *,
    truth_boxes: "ArrayLike | Tensor | None" = None,
    truth_labels: "ArrayLike | Tensor | None" = None,
    score_threshold: float = 0.0,
    line_width: int | None = None,
) -> Image.Image:
    """Return a copy of ``image`` with detections drawn.

    image: a PIL image, (H, W, 3) RGB or (H, W) grey uint8 array, or (3, H, W) uint8 tensor. boxes: (n, 4) x1,
    y1, x2, y2 in its pixels. labels: (n,) class of each box, which sets its colour. scores: (n,). names: the
    n names of the boxes, shown with the score as ``name 0.93``. truth_boxes (k, 4), truth_labels (k,): ground
    truth, drawn dashed and thin without captions. score_threshold: leave out boxes with lower scores.
    line_width: of boxes in pixels, by default depending on the size of the picture.
    """
    picture = to_pil(image)
    boxes_n4 = np.asarray(boxes, np.float64).reshape(-1, 4)
    count = len(boxes_n4)
    labels_n = np.asarray(labels, np.int64).reshape(-1)
    scores_n = np.full(count, np.inf) if scores is None else np.asarray(scores, np.float64).reshape(-1)
    names_n = [""] * count if names is None else list(names)
    if not len(labels_n) == len(scores_n) == len(names_n) == count:
        raise ValueError(
            f"{count} boxes, {len(labels_n)} labels, {len(scores_n)} scores, {len(names_n)} names: "
            "one of each for each box is needed"
        )
    draw = ImageDraw.Draw(picture)
    line, text = _sizes(picture.size)
    line = line_width or line

    if truth_boxes is not None:
        truth_k4 = np.asarray(truth_boxes, np.float64).reshape(-1, 4)
        colors = (
            [(255, 255, 255)] * len(truth_k4)
            if truth_labels is None
            else [class_color(int(label)) for label in np.asarray(truth_labels).reshape(-1)]
        )
        for box, color in zip(truth_k4, colors, strict=True):
            _draw_dashed(draw, _inside(box, picture.size), color, max(1, round(line * 0.6)))

    best_first = [i for i in np.argsort(-scores_n, kind="stable") if scores_n[i] >= score_threshold]
    areas = {i: _inside(boxes_n4[i], picture.size) for i in best_first}
    for i in reversed(best_first):
        _draw_box(draw, areas[i], class_color(int(labels_n[i])), line)

    # The best detection places its caption first, and is drawn last.
    chips: list[tuple[Area, str, int, Color]] = []
    for i in best_first:
        score = "" if scores is None else f"{scores_n[i]:.2f}"
        if chip := _place(draw, areas[i], names_n[i], score, text, picture.size, [c[0] for c in chips]):
            chips.append((*chip, class_color(int(labels_n[i]))))
    for area, caption, size, color in reversed(chips):
        _draw_chip(draw, area, caption, size, color)
    return picture


def contact_sheet(
    images: Sequence[Image.Image],
    columns: int = 3,
    *,
    width: int | None = None,
    gap: int = 8,
    background: Color = (255, 255, 255),
) -> Image.Image:
    """Return pictures side by side in rows of ``columns``.

    width: pixels that each picture is scaled to, keeping its ratio; by default the width of the narrowest.
    Rows are as high as their highest picture. gap: pixels between pictures and around them.
    """
    if not images or columns < 1:
        raise ValueError(f"{len(images)} images in {columns} columns: at least one of each is needed")
    width = width or min(image.width for image in images)
    cells = [
        image.convert("RGB").resize(
            (width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS
        )
        for image in images
    ]
    columns = min(columns, len(cells))
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    sheet = Image.new(
        "RGB", (columns * (width + gap) + gap, sum(heights) + gap * (len(rows) + 1)), background
    )
    top = gap
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (gap + column * (width + gap), top + (height - cell.height) // 2))
        top += height + gap
    return sheet


def to_pil(image: "Image.Image | np.ndarray | Tensor") -> Image.Image:
    """Return a new RGB picture from a PIL image, a (H, W, 3) or (H, W) array or a (3, H, W) tensor, uint8."""
    if isinstance(image, Image.Image) and image.mode != "RGB":
        image = to_array(image)  # the pixels that the network sees, also for 16-bit images
    if isinstance(image, Image.Image):
        return image.copy()
    array = image if isinstance(image, np.ndarray) else image.detach().cpu().permute(1, 2, 0).numpy()
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"a picture of shape {tuple(array.shape)} and type {array.dtype}: needs uint8 RGB")
    return Image.fromarray(np.ascontiguousarray(array))


def _sizes(size: tuple[int, int]) -> tuple[int, int]:
    """Return the width of lines and the height of captions, in pixels, for a picture of (width, height)."""
    scale = math.sqrt(size[0] * size[1])
    return max(2, round(scale * 0.003)), min(64, max(11, round(6 + scale * 0.012)))


def _inside(box: np.ndarray, size: tuple[int, int]) -> Area:
    """Round a box to whole pixels of the picture, at least one of them."""
    width, height = size
    x1, y1, x2, y2 = np.nan_to_num(box, posinf=1e6, neginf=-1e6)
    left, top = min(max(math.floor(x1), 0), width - 1), min(max(math.floor(y1), 0), height - 1)
    return left, top, min(max(math.ceil(x2), left + 1), width), min(max(math.ceil(y2), top + 1), height)


def _draw_box(draw: ImageDraw.ImageDraw, area: Area, color: Color, line: int) -> None:
    """Draw a coloured line just inside the box, with a thin dark line on either side."""
    left, top, right, bottom = area
    for grow, shade, width in ((1, _EDGE, line + 2), (0, color, line)):
        box = (left - grow, top - grow, right - 1 + grow, bottom - 1 + grow)
        draw.rectangle(box, outline=shade, width=width)


def _draw_dashed(draw: ImageDraw.ImageDraw, area: Area, color: Color, line: int) -> None:
    left, top, right, bottom = area[0], area[1], area[2] - 1, area[3] - 1
    dash = 4 + 3 * line
    for grow, shade in ((1, _EDGE), (0, color)):
        for start in range(left, right + 1, dash * 2):
            end = min(start + dash - 1, right)
            for y in (top, max(top, bottom - line + 1)):
                draw.rectangle((start - grow, y - grow, end + grow, y + line - 1 + grow), fill=shade)
        for start in range(top, bottom + 1, dash * 2):
            end = min(start + dash - 1, bottom)
            for x in (left, max(left, right - line + 1)):
                draw.rectangle((x - grow, start - grow, x + line - 1 + grow, end + grow), fill=shade)


@lru_cache(maxsize=64)
def caption_font(ascii: bool, size: int) -> Font:
    """Return Pillow's own font, or a system font for text with letters that it lacks."""
    for name in () if ascii else _WIDE_FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def _place(
    draw: ImageDraw.ImageDraw,
    area: Area,
    name: str,
    score: str,
    size: int,
    picture: tuple[int, int],
    taken: list[Area],
) -> tuple[Area, str, int] | None:
    """Return place, text and font size of a caption; None if the picture has no room for one.

    Preferred is above the box, then inside its top, below it, inside its bottom; each is moved into the
    picture. The first that covers least of the captions already placed wins.
    """
    width, height = picture
    caption, size, (chip_width, chip_height) = _fit(draw, name, score, size, picture)
    if not caption:
        return None
    left, top, right, bottom = area
    best: tuple[int, Area] | None = None
    for x, y in (
        (left, top - chip_height),
        (left, top),
        (left, bottom),
        (left, bottom - chip_height),
        (right - chip_width, top - chip_height),
        (right - chip_width, bottom),
    ):
        x = min(max(x, 0), width - chip_width)
        outside = y < 0 or y + chip_height > height
        y = min(max(y, 0), height - chip_height)
        chip = (x, y, x + chip_width, y + chip_height)
        cost = sum(intersection(chip, other) for other in taken) * 2 + outside
        if best is None or cost < best[0]:
            best = cost, chip
    assert best is not None
    return best[1], caption, size


def _fit(
    draw: ImageDraw.ImageDraw, name: str, score: str, size: int, picture: tuple[int, int]
) -> tuple[str, int, tuple[int, int]]:
    """Return a caption that fits into the picture: whole, the name cut, or the score alone; else none."""
    pad = max(2, size // 5)

    def chip_of(caption: str) -> tuple[int, int]:
        box = draw.textbbox((0, 0), caption, font=caption_font(caption.isascii(), size))
        return math.ceil(box[2] - box[0]) + 2 * pad, round(size * 1.1) + pad

    def fits(caption: str) -> bool:
        chip = chip_of(caption)
        return chip[0] <= picture[0] and chip[1] <= picture[1]

    name = " ".join(name[: 4 * MAX_CAPTION].split())
    full = f"{name}  {score}".strip()  # a name may be a number: two spaces
    if 0 < len(full) <= MAX_CAPTION and fits(full):
        return full, size, chip_of(full)
    # Find the longest beginning that fits by bisection, because measuring a text is as slow as drawing it.
    lengths = range(2, min(len(name), MAX_CAPTION))
    count = bisect_left(lengths, True, key=lambda length: not fits(f"{name[:length]}… {score}".strip()))
    cut = f"{name[: lengths[count - 1]]}… {score}".strip() if count else ""
    for caption in (cut, score):
        if caption and fits(caption):
            return caption, size, chip_of(caption)
    return "", size, (0, 0)


def _draw_chip(draw: ImageDraw.ImageDraw, area: Area, caption: str, size: int, color: Color) -> None:
    left, top, right, bottom = area
    draw.rectangle((left, top, right - 1, bottom - 1), fill=color)
    light = 0.2126 * _linear(color[0]) + 0.7152 * _linear(color[1]) + 0.0722 * _linear(color[2])
    ink = (0, 0, 0) if light > 0.179 else (255, 255, 255)  # where contrast to black and to white is equal
    font = caption_font(caption.isascii(), size)
    x = (left + right - round(draw.textlength(caption, font))) // 2  # whole pixels keep letters sharp
    draw.text((x, (top + bottom) // 2), caption, fill=ink, font=font, anchor="lm")


def _linear(value: int) -> float:
    """Convert sRGB 0..255 to linear light 0..1, ignoring the small linear part near black."""
    return (value / 255) ** 2.2
