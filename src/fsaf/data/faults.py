"""Faults of a data set: their kinds, what training does about each kind, and the faults found.

The rules are the same for all formats. *refused*: training stops at the first such fault and prints its
message. *left out*: training leaves that box or image out and prints how many. *warned*: training uses it as
it is and prints how many.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fsaf.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of fault."""

    rule: Literal["refused", "left out", "warned"]
    title: str
    """Plural phrase, e.g. "3 images listed twice"."""


def _kinds(rule: Literal["refused", "left out", "warned"], **titles: str) -> dict[str, Kind]:
    return {name.replace("_", "-"): Kind(rule=rule, title=title) for name, title in titles.items()}


FAULT_KINDS: dict[str, Kind] = {
    **_kinds(
        "refused",
        entry="entries that cannot be read",
        box_not_a_number="boxes with a coordinate that is not a finite number",
        unknown_category="boxes of a category that is not listed",
        unknown_image="boxes of an image that is not listed",
        image_id_twice="images listed twice",
        path_leaves="image paths that leave their folder",
        no_images="splits without images",
        no_boxes="training splits without boxes",
        classes_differ="splits of other classes",
        image_missing="images that are not there",
        image_too_large="images over data.max_pixels",
        image_unreadable="images that do not decode",
        size_differs="images of another size than the annotations say",
    ),
    **_kinds(
        "left out",
        box_inverted="boxes whose sides are negative",
        box_empty="boxes under a pixel high or wide",
        box_outside="boxes outside their image",
        box_twice="boxes repeated (same class and place)",
        box_ignored="boxes marked 'ignore'",
        box_other_class="boxes of classes that the detector does not have",
        image_unused="images without boxes or under data.min_size, which are missing or do not decode",
        image_skipped="images that do not decode (data.on_bad_image: skip)",
        image_without_boxes="images without boxes (unless data.keep_empty)",
        image_small="images with a side under data.min_size",
    ),
    **_kinds(
        "warned",
        box_clipped="boxes more than a pixel over the edge of their image, clipped",
        box_no_location="boxes that no location can learn at this resize",
        boxes_over_limit="images with more boxes than data.max_boxes, of which training cuts the smallest",
        loose_number="ids or sizes written as decimals or text",
        image_id_text="image ids that are text, numbered anew",
        size_missing="images without width and height, measured",
        box_from_polygon="boxes without 'bbox', taken from their polygons",
        image_cut_short="images cut short, used as far as they go (data.on_bad_image: accept)",
        exif_rotated="images with an EXIF rotation tag",
        annotation_id="annotation ids missing or used twice",
        size_differs_unused="images not trained on of another size than the annotations say",
        label_missing="images without a label file, taken to hold no object",
        label_without_image="label files without an image",
        name_differs="images found by the name of their annotation file and not by 'filename'",
        class_without_boxes="classes without boxes",
        in_two_splits="images in two splits, the same bytes",
        nearly_in_two_splits="images in two splits, nearly the same picture",
        image_twice="images twice in a split, the same bytes",
    ),
}
"""Every kind of fault by name, in the order of a report."""

BOXES_DROPPED = ("box-inverted", "box-empty", "box-outside")
"""Kinds of boxes that have no area inside their image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One fault."""

    kind: str
    file: Path
    """The annotation file or the image."""
    text: str
    """The fault, to print after the name of the file."""
    image: int | None = None
    """Image id."""
    boxes: int = 0
    """Number of boxes that are lost with an image that could not be read."""
    item: int | None = None
    """COCO: annotation id. VOC: number of the object in its file. YOLO: number of the line. Both from 1."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        rule = FAULT_KINDS[self.kind].rule
        row: dict[str, Any] = {"kind": self.kind, "rule": rule, "file": str(self.file), "text": self.text}
        row |= {"image_id": self.image, "item": self.item}
        return row | ({"boxes": self.boxes} if self.boxes else {})


@dataclass(kw_only=True)
class Faults:
    """Counts the faults of a split by kind, and keeps the first few of each kind, or all."""

    refuse: bool = True
    """Raise UserError for a refused fault, as training does; False collects it, as ``fsaf check`` does."""
    keep: int | None = 3
    """Number of faults to keep of each kind; None keeps all."""
    counts: Counter[str] = field(default_factory=Counter)
    kept: dict[str, list[Fault]] = field(default_factory=dict)

    def add(
        self,
        kind: str,
        file: Path,
        text: str,
        *,
        image: int | None = None,
        item: int | None = None,
        boxes: int = 0,
    ) -> None:
        """Count a fault. Raises UserError if its kind is refused and ``refuse`` is set."""
        if self.refuse and FAULT_KINDS[kind].rule == "refused":
            raise DataError(f"{file}: {text}")
        self.counts[kind] += 1
        kept = self.kept.setdefault(kind, [])
        if self.keep is None or len(kept) < self.keep:
            kept.append(Fault(kind=kind, file=file, text=text, image=image, item=item, boxes=boxes))

    def note_boxes(self, image: int, boxes: int) -> None:
        """Note the number of boxes that are lost with an image, in the first fault of that image."""
        for kind, kept in self.kept.items():
            for i, fault in enumerate(kept):
                if fault.image == image and fault.item is None and FAULT_KINDS[kind].rule != "warned":
                    kept[i] = replace(fault, boxes=boxes)
                    return

    def __contains__(self, kind: str) -> bool:
        return self.counts[kind] > 0

    @property
    def refused(self) -> bool:
        """True if training would refuse the data."""
        return any(FAULT_KINDS[kind].rule == "refused" for kind, count in self.counts.items() if count)

    @property
    def dropped(self) -> int:
        """Number of boxes left out because they have no area inside their image."""
        return sum(self.counts[kind] for kind in BOXES_DROPPED)
