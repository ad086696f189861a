"""Split a data set that is not split: hold out a share of its images for evaluation.

The choice depends on the names of the images, their classes and a seed alone, so that every run and every
process makes the same one.
"""

import hashlib
from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fsaf.config import DataConfig
from fsaf.data.faults import Faults
from fsaf.data.records import Classes, Records, Split
from fsaf.data.table import BoxTable


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One part of a split: the images held out for evaluation, or the others."""

    whole: Split
    evaluation: bool
    missing: str | None = None

    @property
    def source(self) -> Path:
        """The file or folder that messages name."""
        return self.whole.source

    @property
    def ids_are_official(self) -> bool:
        """Classes of the whole set, which both parts have."""
        return True

    def original(self) -> dict[str, Any] | None:
        """Return the COCO JSON of the whole split, None in other formats."""
        return self.whole.original()

    def read(self, classes: Classes | None, faults: Faults, data: DataConfig) -> Records:
        """Read the whole split and keep the images of this part, with their faults.

        Faults of no image are counted with the part to train on.
        """
        every = Faults(refuse=faults.refuse, keep=None)
        records = self.whole.read(classes, every, data)
        names = {image.id: image.path.relative_to(records.folder).as_posix() for image in records.images}
        labels = {image.id: set(image.labels[~image.crowd].tolist()) for image in records.images}
        held_out = choose(names, labels, data.val_share, data.val_seed)
        for kept in every.kept.values():
            for fault in kept:
                if (fault.image in held_out) == self.evaluation:
                    place = {"image": fault.image, "item": fault.item, "boxes": fault.boxes}
                    faults.add(fault.kind, fault.file, fault.text, **place)  # type: ignore[arg-type]
        keep = [i for i, image in enumerate(records.images) if (image.id in held_out) == self.evaluation]
        note = (
            f"{self.source} is not split: {len(held_out):,} of its {len(names):,} images are held out for "
            "evaluation, chosen by name (data.val_share, data.val_seed)"
        )
        return replace(
            records,
            images=[records.images[i] for i in keep],
            table=None if records.table is None else _part(records.table, keep),
            dropped=faults.dropped,
            faults=faults,
            notes=[*records.notes, note] if self.evaluation else records.notes,
        )


def choose(names: dict[int, str], labels: dict[int, set[int]], share: float, seed: int) -> set[int]:
    """Return the ids of the images to hold out, about ``share`` of those of each class.

    names: name of each image by id. labels: classes of its boxes. An image counts for its rarest class. Each
    class keeps an image to train on.
    """
    count = Counter(label for each in labels.values() for label in each)
    groups: dict[int, list[int]] = defaultdict(list)
    for id_, each in labels.items():
        groups[min(each, key=lambda label: (count[label], label), default=-1)].append(id_)
    chosen: set[int] = set()
    owed = 0.0  # what rounding left of the groups before
    for label in sorted(groups, key=lambda label: (count[label], label)):
        members = sorted(groups[label], key=lambda id_: _draw(names[id_], seed))
        owed += share * len(members)
        taken = min(int(owed + 0.5), len(members) - (label >= 0))
        chosen.update(members[:taken])
        owed -= taken
    return chosen


def _draw(name: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}:{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _part(table: BoxTable, keep: list[int]) -> BoxTable:
    """Return the boxes of the images at positions ``keep``, which become 0, 1, 2, ..."""
    new = {old: i for i, old in enumerate(keep)}
    rows = np.array([i for i, position in enumerate(table.image) if position in new], np.int64)
    part = BoxTable()
    part.image = array("q", [new[table.image[i]] for i in rows])
    part.xywh = array("d", np.asarray(table.xywh, np.float64).reshape(-1, 4)[rows].reshape(-1).tolist())
    for name in ("label", "crowd", "item", "entry", "area", "used"):
        column = getattr(table, name)
        setattr(part, name, array(column.typecode, [column[i] for i in rows]))
    return part
