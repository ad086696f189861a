"""The output of ``fsaf check``: contents, faults and batch shapes of a data set, as text or plain values."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from fsaf.checking.annotations import count_classes
from fsaf.checking.plan import blank_rows, plan_shapes, resize_all, waste, waste_per_batch, waste_square
from fsaf.checking.reach import levels_of, resize_boxes
from fsaf.config import DataConfig, ObjectiveConfig
from fsaf.data.faults import FAULT_KINDS, Fault
from fsaf.data.records import Records
from fsaf.data.shapes import choose_shape, fit_image
from fsaf.text import columns, printable

HEIGHTS = (0, 8, 16, 32, 64, 128, 256, 512)
"""Lower limits of the ranges of box heights in pixels; the last range is open."""
LEVELS = ("P3", "P4", "P5", "P6", "P7")
MOST_CLASSES = 10
"""Classes that the first table shows."""


def contents_text(splits: Mapping[str, Records], most: int | None = None) -> str:
    """Return images, boxes and classes of each split as aligned plain text.

    most: show at most this many classes, those with most boxes.
    """
    names = list(splits)
    records = list(splits.values())
    rows = [["", *names]]
    rows += _row("images", [len(split.images) for split in records])
    rows += _row("  without boxes", [sum(not len(i.boxes) for i in split.images) for split in records])
    rows += _row("boxes", [sum(int((~i.crowd).sum()) for i in split.images) for split in records])
    rows += _row("crowd regions", [sum(int(i.crowd.sum()) for i in split.images) for split in records])
    rows += _row("boxes left out", [split.dropped for split in records])
    counts = [dict(zip(s.classes.names, count_classes(s).tolist(), strict=True)) for s in records]
    classes = list(dict.fromkeys(name for split in records for name in split.classes.names))
    shown = classes
    if most is not None and len(classes) > most:
        shown = sorted(classes, key=lambda name: -sum(count.get(name, 0) for count in counts))[:most]
    rows += [[""], ["class", *names]]
    rows += [[name, *(f"{count[name]:,}" if name in count else "-" for count in counts)] for name in shown]
    text = columns(rows, "lr")
    return (
        text if len(shown) == len(classes) else f"{text}\n... and {len(classes) - len(shown):,} more classes"
    )


def sizes_text(splits: Mapping[str, Records], data: DataConfig, objective: ObjectiveConfig) -> str:
    """Return tables of box heights, and of the boxes that each pyramid level can learn."""
    names, records = list(splits), list(splits.values())
    rows: list[list[str]] = []
    for title, resized in (("box height, in the file", False), ("box height, resized", True)):
        rows += [[""], [title, *names]]
        tables = [_heights(split, data if resized else None) for split in records]
        for i in range(len(HEIGHTS)):
            rows += _row(_range(i), [int(table[i]) for table in tables])
    rows += [[""], *_levels(records, data, objective)]
    shapes = ", ".join(f"{height} x {width}" for height, width in data.shapes or [])
    notes = [
        "Side: the square root of width times height. P3 to P7: boxes that this level of the feature pyramid",
        "(strides of 8, 16, 32, 64 and 128 pixels) has locations for, so that it can learn them.",
        f"Resized: to a short side of {data.short_side} and a long side of {data.long_side} pixels at most"
        + (f", and into batch shapes of {shapes}." if shapes else "."),
    ]
    return "\n".join([columns(rows[1:], "lr"), "", *notes])


def describe(splits: Mapping[str, Records], data: DataConfig, objective: ObjectiveConfig) -> str:
    """Return contents and sizes of each split as aligned plain text."""
    return f"{contents_text(splits)}\n\n{sizes_text(splits, data, objective)}"


def plan_text(splits: Mapping[str, Records], count: int, short_side: int, long_side: int) -> str:
    """Return the planned shapes, ready to paste into a recipe, and their waste beside other paddings."""
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
    few = f"Of {count} shapes asked for, {len(shapes)} help.\n" if len(shapes) < count else ""
    return (
        f"{len(sizes):,} images of {', '.join(splits)}; short side {short_side}, long side {long_side}.\n"
        f"{few}\n  shapes: [{', '.join(f'[{h}, {w}]' for h, w in shapes)}]\n\n"
        f"{columns(rows, 'lr')}\n\n{columns(table, 'lr')}\n\n"
        "Waste is padding as a share of the resized images' pixels. In training the last batch of each\n"
        f"shape is filled up with blank rows besides: {fill} images a step, as a share of all images."
    )


def faults_text(splits: Mapping[str, Records], root: Path, most: int = 3) -> str:
    """Return a table of all faults by kind and what training does about them, and the first of each kind.

    root: files are named relative to it.
    """
    names = list(splits)
    kinds = [kind for kind in FAULT_KINDS if any(kind in split.faults for split in splits.values())]
    if not kinds:
        return "No faults found."
    rows = [["fault", *names, "training"]]
    for kind in kinds:
        counts = [f"{split.faults.counts[kind]:,}" for split in splits.values()]
        rows.append([FAULT_KINDS[kind].title, *counts, FAULT_KINDS[kind].rule])
    lines = [columns(rows, "lr")]
    for kind in kinds:
        lines += ["", f"{kind}: {FAULT_KINDS[kind].title}"]
        total = sum(split.faults.counts[kind] for split in splits.values())
        found = [(n, fault) for n, split in splits.items() for fault in split.faults.kept.get(kind, [])]
        lines += [f"  {name}: {_line(fault, root)}" for name, fault in found[:most]]
        if total > most:
            lines.append(f"  ... and {total - most:,} more")
    return "\n".join(lines)


def below(text: str, root: Path) -> str:
    """Return a text with its paths relative to ``root``."""
    return text.replace(f"{root}{os.sep}", "")


def _line(fault: Fault, root: Path) -> str:
    lost = f"; its {fault.boxes:,} boxes are lost with it" if fault.boxes else ""
    return printable(below(f"{fault.file}: {fault.text}{lost}", root))


class SplitFindings(TypedDict):
    """Contents and faults of a split, as plain values for JSON."""

    format: str
    source: str
    image_folder: str
    images: int
    boxes: int
    crowd_regions: int
    classes: dict[str, int]
    """Number of boxes of each class."""
    counts: dict[str, int]
    """Number of faults of each kind."""
    faults: list[dict[str, Any]]


def check_result(splits: Mapping[str, Records]) -> dict[str, SplitFindings]:
    """Return the contents and all faults of each split as plain values for JSON."""
    return {
        name: {
            "format": split.format,
            "source": str(split.source),
            "image_folder": str(split.folder),
            "images": len(split.images),
            "boxes": sum(int((~image.crowd).sum()) for image in split.images),
            "crowd_regions": sum(int(image.crowd.sum()) for image in split.images),
            "classes": dict(zip(split.classes.names, count_classes(split).tolist(), strict=True)),
            "counts": {kind: split.faults.counts[kind] for kind in FAULT_KINDS if kind in split.faults},
            "faults": [fault.to_dict() for kind in FAULT_KINDS for fault in split.faults.kept.get(kind, [])],
        }
        for name, split in splits.items()
    }


def _levels(records: Sequence[Records], data: DataConfig, objective: ObjectiveConfig) -> list[list[str]]:
    """Return a table of all boxes by their resized side, and how many of them each level can learn."""
    edges = [*HEIGHTS, np.inf]
    found = [resize_boxes(split, lambda size: fit_image(size, data)[0]) for split in records]
    boxes = np.concatenate([each[0] for each in found])
    levels = levels_of(boxes, np.concatenate([each[1] for each in found]), objective)
    nowhere = np.logical_not(levels.any(1))
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).astype(np.float64).prod(1))
    rows = [["box side, resized", "boxes", *LEVELS, "none"]]
    for i, low in enumerate(HEIGHTS):
        mine = (sides >= low) & (sides < edges[i + 1])
        counts = [mine.sum(), *(levels[:, j][mine].sum() for j in range(len(LEVELS)))]
        counts.append(nowhere[mine].sum())
        rows.append([_range(i), *(f"{int(count):,}" for count in counts)])
    return rows


def _range(i: int) -> str:
    return f"  {HEIGHTS[i]} to {HEIGHTS[i + 1]}" if i + 1 < len(HEIGHTS) else f"  {HEIGHTS[i]} or more"


def _heights(split: Records, data: DataConfig | None) -> np.ndarray:
    """Return the number of boxes in each range of ``HEIGHTS``, without crowd regions; data: resize them."""
    heights = [np.zeros(0)]
    for image in split.images:
        size = (image.height, image.width)
        height = fit_image(size, data)[0][0] if data else image.height
        boxes = image.boxes[~image.crowd].astype(np.float64)
        heights.append((boxes[:, 3] - boxes[:, 1]) * (height / image.height))
    return np.histogram(np.concatenate(heights), [*HEIGHTS, np.inf])[0]


def _row(label: str, values: Sequence[int]) -> list[list[str]]:
    return [[label, *(f"{value:,}" for value in values)]]
