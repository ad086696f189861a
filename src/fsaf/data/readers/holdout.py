"""Split a data set that is not split: by lists of images, or by holding out a share of them for evaluation.

What is held out depends on the names of the images, their classes and a seed alone, so that every run and
every process makes the same choice.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fsaf.config import DataConfig
from fsaf.data.decode import IMAGE_SUFFIXES
from fsaf.data.faults import Fault, Faults
from fsaf.data.readers.data_yaml import read_lines
from fsaf.data.records import Classes, Records, Split


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
        names = names_of(records)
        labels = {image.id: set(image.labels[~image.crowd].tolist()) for image in records.images}
        held_out = choose(names, labels, data.val_share, data.val_seed)
        mine = {id_ for id_ in names if (id_ in held_out) == self.evaluation}
        _copy_faults(every, faults, lambda fault: (fault.image in held_out) == self.evaluation)
        note = (
            f"{self.source} is not split: {len(held_out):,} of its {len(names):,} images are held out for "
            "evaluation, chosen by name (data.val_share, data.val_seed)"
        )
        return _part(records, mine, faults, [note] if self.evaluation else [])


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The images of a data set that a text file lists, one a line, as ``fsaf check --split`` writes it."""

    whole: Split
    source: Path
    """The text file."""
    missing: str | None = None

    @property
    def ids_are_official(self) -> bool:
        """As of the whole: all lists have its classes."""
        return True

    def original(self) -> dict[str, Any] | None:
        """Return the COCO JSON of the whole split, None in other formats."""
        return self.whole.original()

    def read(self, classes: Classes | None, faults: Faults, data: DataConfig) -> Records:
        """Read the whole split and keep the images that are listed, with their faults."""
        every = Faults(refuse=False, keep=None)
        records = self.whole.read(classes, every, data)
        id_of = {name: id_ for id_, name in names_of(records).items()}
        id_of |= {str(image.path.absolute()): image.id for image in records.images}
        stems, mine = set(), set()
        for number, line in enumerate(read_lines(self.source), start=1):
            if not line:
                continue
            name = line.replace("\\", "/").removeprefix("./")
            stems.add(Path(name).stem)
            if name not in id_of and Path(name).stem not in {fault.file.stem for fault in _of_files(every)}:
                text = f"line {number}: {line!r:.120} is no image of {self.whole.source}"
                faults.add("image-missing", self.source, text)
            elif id_of.get(name) in mine:
                faults.add("image-id-twice", self.source, f"line {number}: {line!r:.120} appears twice")
            elif name in id_of:
                mine.add(id_of[name])
        known = set(id_of.values())
        _copy_faults(
            every,
            faults,
            lambda fault: fault.image in mine if fault.image in known else fault.file.stem in stems,
        )
        return _part(records, mine, faults, [])


def names_of(records: Records) -> dict[int, str]:
    """Return the path of each image from the folder of images, by id."""
    return {image.id: image.path.relative_to(records.folder).as_posix() for image in records.images}


def is_image_list(file: Path) -> bool:
    """Return True if the first line of a text file names an image."""
    if file.suffix != ".txt" or not file.is_file():
        return False
    first = next((line for line in read_lines(file) if line), "")
    return Path(first).suffix.lower() in IMAGE_SUFFIXES


def _of_files(faults: Faults) -> Iterator[Fault]:
    """Yield the faults of images that are not among the records."""
    for kind in ("image-missing", "image-unreadable", "image-skipped", "image-too-large"):
        yield from faults.kept.get(kind, [])


def _copy_faults(every: Faults, faults: Faults, mine: Callable[[Fault], bool]) -> None:
    for fault in (fault for kept in every.kept.values() for fault in kept if mine(fault)):
        faults.add(fault.kind, fault.file, fault.text, image=fault.image, item=fault.item, boxes=fault.boxes)


def _part(records: Records, ids: set[int], faults: Faults, notes: list[str]) -> Records:
    """Return the images ``ids`` of a split with their boxes."""
    keep = [position for position, image in enumerate(records.images) if image.id in ids]
    return replace(
        records,
        images=[records.images[i] for i in keep],
        table=None if records.table is None else records.table.pick(keep),
        dropped=faults.dropped,
        faults=faults,
        notes=[*records.notes, *notes],
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
