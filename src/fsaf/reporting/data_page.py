"""The page of ``fsaf check --html``: what a data set holds, and pictures of its faults."""

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from fsaf.checking.annotations import count_classes
from fsaf.checking.survey import Survey
from fsaf.checking.text import below, sizes_text
from fsaf.config import Config, DataConfig
from fsaf.data.faults import FAULT_KINDS, Fault
from fsaf.data.records import ImageRecord, Records
from fsaf.data.samples import read_record
from fsaf.detection.draw import draw_result, to_pil
from fsaf.errors import UserError
from fsaf.reporting.charts import dot_chart
from fsaf.reporting.page import write_page
from fsaf.run_folder.read import jpeg_url

EACH = 6
"""Faults of each kind that are shown."""
MOST_CLASSES = 80
_BYTES = 60_000
_WRONG, _OTHER = 1, 0  # places in ``draw.PALETTE``: orange, blue


def write_data_page(path: Path, survey: Survey, config: Config, verdict: str) -> None:
    """Write a page on a data set: verdict, faults with pictures, class balance, sizes of images and boxes.

    Raises WriteError if it cannot be written.
    """
    splits = survey.read
    kinds = [kind for kind in FAULT_KINDS if any(kind in records.faults for records in splits.values())]
    write_page(
        path,
        "data.html.j2",
        root=str(survey.root),
        formats=", ".join(dict.fromkeys(records.format for records in splits.values())),
        verdict=below(verdict, survey.root),
        refused=survey.refused,
        notes=[below(note, survey.root) for note in survey.notes],
        splits=[(name, len(split.images), _boxes(split), split.dropped) for name, split in splits.items()],
        faults=[_section(kind, survey, config.data) for kind in kinds],
        classes=_classes(survey),
        more_classes=max(
            0, len({n for split in splits.values() for n in split.classes.names}) - MOST_CLASSES
        ),
        charts=[_sizes(name, split) for name, split in splits.items()],
        sizes=sizes_text(splits, config.data, config.objective),
    )


def _boxes(records: Records) -> int:
    return sum(int((~image.crowd).sum()) for image in records.images)


def _classes(survey: Survey) -> list[tuple[str, list[tuple[int, float]]]]:
    """Return each class with its count, and its share of the largest count, in each split."""
    counts = [
        dict(zip(records.classes.names, count_classes(records).tolist(), strict=True))
        for records in survey.read.values()
    ]
    names = sorted(
        {name for each in counts for name in each}, key=lambda n: -sum(c.get(n, 0) for c in counts)
    )
    largest = [max([1, *each.values()]) for each in counts]
    return [
        (
            name,
            [(each.get(name, 0), each.get(name, 0) / top) for each, top in zip(counts, largest, strict=True)],
        )
        for name in names[:MOST_CLASSES]
    ]


def _sizes(name: str, records: Records) -> str:
    sizes = Counter((float(image.width), float(image.height)) for image in records.images)
    return dot_chart(f"Width and height of the images of {name}", sizes, "width in pixels", "height")


def _section(kind: str, survey: Survey, data: DataConfig) -> dict[str, object]:
    """Return all that the page says of a kind of fault."""
    counts = {name: records.faults.counts[kind] for name, records in survey.read.items()}
    found = [
        (name, records, fault)
        for name, records in survey.read.items()
        for fault in records.faults.kept.get(kind, [])
    ]
    seen: set[tuple[str, object]] = set()
    first = []  # faults of different images before further ones of the same
    for name, _, fault in found:
        first.append((name, fault.image) not in seen)
        seen.add((name, fault.image))
    order = sorted(range(len(found)), key=lambda i: not first[i])[:EACH]
    shown = []
    for name, records, fault in (found[i] for i in order):
        text = below(f"{name}: {fault.file}: {fault.text}", survey.root)
        shown.append((text, _picture(fault, records, data)))
    return {
        "kind": kind,
        "title": FAULT_KINDS[kind].title,
        "rule": FAULT_KINDS[kind].rule,
        "counts": counts,
        "shown": shown,
        "more": sum(counts.values()) - len(shown),
    }


def _picture(fault: Fault, records: Records, data: DataConfig) -> str | None:
    """Return the image of a fault with its boxes drawn, as a data URL; None if there is nothing to show."""
    image = next((each for each in records.images if each.id == fault.image), None)
    if image is None:
        return None
    try:
        picture = to_pil(read_record(image, records, data))
        return jpeg_url(_draw(picture, image, records, fault), _BYTES)
    except (UserError, OSError):
        return None


def _draw(picture: Image.Image, image: ImageRecord, records: Records, fault: Fault) -> Image.Image:
    """Draw the boxes of an image as the annotations give them: the faulty one orange, others blue, dashed."""
    boxes, labels, items = image.boxes.astype(np.float64), image.labels, image.items
    if records.table is not None:
        position = records.images.index(image)
        rows = np.flatnonzero(np.asarray(records.table.image) == position)
        x, y, w, h = np.asarray(records.table.xywh, np.float64).reshape(-1, 4)[rows].T
        boxes = np.stack(
            (np.minimum(x, x + w), np.minimum(y, y + h), np.maximum(x, x + w), np.maximum(y, y + h)), 1
        )
        labels, items = np.asarray(records.table.label)[rows], np.asarray(records.table.item)[rows]
    ok = np.isfinite(boxes).all(1)
    boxes, labels, items = boxes[ok].clip(-1e6, 1e6), labels[ok], items[ok]
    wrong = items == fault.item if fault.item is not None else np.zeros(len(items), bool)
    return draw_result(
        picture,
        boxes[wrong],
        np.full(int(wrong.sum()), _WRONG),
        names=[records.classes.names[label] for label in labels[wrong]],
        truth_boxes=boxes[~wrong],
        truth_labels=np.full(int((~wrong).sum()), _OTHER),
    )
