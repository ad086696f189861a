"""What a data set holds, and the batch shapes that suit it: the text of ``fsaf check``."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.cells import cell_len

from fsaf.data.plan import blank_rows, plan_shapes, resize_all, waste, waste_per_batch, waste_square
from fsaf.data.records import Records, read_coco
from fsaf.data.shapes import choose_shape
from fsaf.errors import UserError

HEIGHTS = (0, 8, 16, 32, 64, 128, 256, 512)
"""Where the ranges of box heights start, in pixels; the last has no end."""


def find_splits(data: Path) -> dict[str, Path]:
    """Annotation files by the name of their split.

    data: a COCO JSON file, or a folder with ``annotations/*.json``. Of COCO's own archives, whose folder also
    holds captions and keypoints of the same images, only ``instances_*.json`` are taken.
    Raises UserError where there is none.
    """
    if data.is_file():
        files = [data]
    elif data.is_dir():
        files = sorted((data / "annotations").glob("*.json"))
        files = [file for file in files if file.name.startswith("instances_")] or files
    else:
        raise UserError(f"{data}: no such file or folder; give a COCO JSON file, or a folder of a data set")
    if not files:
        raise UserError(f"{data}: no annotations/*.json in it; give a COCO JSON file itself")
    return {file.stem.removeprefix("instances_") or file.stem: file for file in files}


def read_splits(data: Path) -> dict[str, Records]:
    """Read every split of ``data``; image files are not needed. Raises UserError as ``read_coco`` does."""
    return {name: read_coco(file, file.parent) for name, file in find_splits(data).items()}


def describe(splits: Mapping[str, Records], short_side: int, long_side: int) -> str:
    """Images, boxes, classes and box heights of each split, as aligned plain text."""
    names = list(splits)
    records = list(splits.values())
    rows = [["", *names]]
    rows += _row("images", [len(split.images) for split in records])
    rows += _row("  without boxes", [sum(not len(i.boxes) for i in split.images) for split in records])
    rows += _row("boxes", [sum(int((~i.crowd).sum()) for i in split.images) for split in records])
    rows += _row("crowd regions", [sum(int(i.crowd.sum()) for i in split.images) for split in records])
    rows += _row("boxes left out", [split.dropped for split in records])
    notes = ["Left out: boxes under a pixel high or wide, or outside their image."] if any(
        split.dropped for split in records
    ) else []  # fmt: skip

    counts = [_class_counts(split) for split in records]
    rows += [[""], ["class", *names]]
    for name in dict.fromkeys(name for split in records for name in split.classes.names):
        rows.append([name, *(f"{count[name]:,}" if name in count else "-" for count in counts)])

    for title, resized in (("box height, in the file", False), ("box height, resized", True)):
        rows += [[""], [title, *names]]
        tables = [_heights(split, short_side, long_side, resized) for split in records]
        for i, low in enumerate(HEIGHTS):
            label = f"{low} to {HEIGHTS[i + 1]}" if i + 1 < len(HEIGHTS) else f"{low} or more"
            rows += _row(f"  {label}", [int(table[i]) for table in tables])
    notes.append(f"Resized: to a short side of {short_side} and a long side of {long_side} pixels at most.")
    return "\n".join([_align(rows), "", *notes])


def plan_text(splits: Mapping[str, Records], count: int, short_side: int, long_side: int) -> str:
    """The planned shapes, ready for a recipe, and what they waste beside other paddings."""
    sizes = [(image.height, image.width) for split in splits.values() for image in split.images]
    plans = {n: plan_shapes(sizes, n, short_side, long_side) for n in range(1, count + 1)}
    shapes = plans[count]
    resized = resize_all(sizes, short_side, long_side)
    numbers = Counter(choose_shape(size, shapes) for size in resized)

    rows = [["shape (height x width)", "images"]]
    rows += [[f"{h} x {w}", f"{numbers[h, w]:,}"] for h, w in shapes]
    table = [["padding", "waste"]]
    wastes = {n: waste(resized, plan) for n, plan in plans.items() if len(plan) == n}
    table += [[f"{n} shape{'s' if n > 1 else ''}", f"{100 * value:.1f}%"] for n, value in wastes.items()]
    for size in (2, 16):
        value = waste_per_batch(resized, size)
        table.append([f"each batch to its largest image, {size} images (MMDetection)", f"{100 * value:.1f}%"])
    table.append(
        ["every image to one square of the long side", f"{100 * waste_square(resized, long_side):.1f}%"]
    )
    fill = " and ".join(f"{100 * blank_rows(resized, shapes, size):.1f}% at {size}" for size in (2, 16))
    few = f"Of {count} shapes asked for, {len(shapes)} are of use.\n" if len(shapes) < count else ""
    return (
        f"{len(sizes):,} images of {', '.join(splits)}; short side {short_side}, long side {long_side}.\n"
        f"{few}\n  shapes: [{', '.join(f'[{h}, {w}]' for h, w in shapes)}]\n\n"
        f"{_align(rows)}\n\n{_align(table)}\n\n"
        "Waste is padding as a share of the resized images' pixels. In training the last batch of each\n"
        f"shape is filled up with blank rows besides: {fill} images a step, as a share of all images."
    )


def _class_counts(split: Records) -> dict[str, int]:
    """Boxes of each class, without crowd regions."""
    counts = np.zeros(len(split.classes), np.int64)
    for image in split.images:
        counts += np.bincount(image.labels[~image.crowd], minlength=len(counts))
    return dict(zip(split.classes.names, counts.tolist(), strict=True))


def _heights(split: Records, short_side: int, long_side: int, resized: bool) -> np.ndarray:
    """Boxes in each range of ``HEIGHTS``, without crowd regions."""
    sizes = [(image.height, image.width) for image in split.images]
    scaled = resize_all(sizes, short_side, long_side) if resized else sizes
    heights = [np.zeros(0)]
    for image, (height, _) in zip(split.images, scaled, strict=True):
        boxes = image.boxes[~image.crowd].astype(np.float64)
        heights.append((boxes[:, 3] - boxes[:, 1]) * (height / image.height))
    return np.histogram(np.concatenate(heights), [*HEIGHTS, np.inf])[0]


def _row(label: str, values: Sequence[int]) -> list[list[str]]:
    return [[label, *(f"{value:,}" for value in values)]]


def _align(rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right."""
    printable = [["".join(c if c.isprintable() else "?" for c in cell) for cell in row] for row in rows]
    columns = max(len(row) for row in printable)
    widths = [max(cell_len(row[i]) for row in printable if len(row) > i) for i in range(columns)]
    lines = []
    for first, *others in printable:
        line = first + " " * (widths[0] - cell_len(first))
        for cell, width in zip(others, widths[1:], strict=False):
            line += "  " + " " * (width - cell_len(cell)) + cell
        lines.append(line.rstrip())
    return "\n".join(lines)
