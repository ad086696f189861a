"""Open the splits that a config names, and check them."""

from pathlib import Path

from fsaf.config import DataConfig, SplitConfig
from fsaf.data.decode import ImageTooLarge, check_pixels, is_file
from fsaf.data.faults import BOXES_DROPPED, FAULT_KINDS, Faults
from fsaf.data.readers.formats import choose_split, find_splits, given_split
from fsaf.data.records import Classes, Records, Split
from fsaf.errors import UserError


def open_split(data: DataConfig, name: str, classes: Classes | None = None) -> Records:
    """Read the split ``train`` or ``val``: the one that the config names, else one found in ``data.root``.

    classes: those of a detector, which the data must have. Raises UserError if there is no such split, if it
    has no images, and for every fault that training refuses (``fsaf.data.faults``).
    """
    split: SplitConfig = getattr(data, name)
    root = Path(data.root) if data.root else Path()
    if data.root and split.annotations is None and split.images is None:
        splits = find_splits(root)
        chosen = choose_split(splits, name, root)
        if chosen is None:
            raise UserError(
                f"{root}: has no split to {'train' if name == 'train' else 'evaluate'} on, only "
                f"{', '.join(splits)}; give --data.{name}.annotations and --data.{name}.images"
            )
        opened = chosen[1]
    elif split.annotations is None:
        raise UserError(
            f"data.{name}.annotations is not set; give it in the config or as --data.{name}.annotations PATH"
            ", or --data.root FOLDER alone"
        )
    else:
        images = None if split.images is None else root / split.images
        opened = given_split(root / split.annotations, images, name)
    records = opened.read(classes, Faults(), data)
    if not records.images:
        raise UserError(f"{records.source}: lists no images")
    if name == "train":
        records.table = None  # only scoring and checking need it; COCO's takes 60 MB
    return records


def splits_of(data: DataConfig) -> dict[str, Split]:
    """Return the splits that the config names, else those found in ``data.root``, by name."""
    root = Path(data.root or ".")
    named = {"train": data.train, "val": data.val}
    return {
        name: given_split(root / split.annotations, root / split.images if split.images else None, name)
        for name, split in named.items()
        if split.annotations is not None
    } or find_splits(root)


def notes_on(records: Records) -> list[str]:
    """Return what reading left out of a split and what looks wrong in it, a line for each kind."""
    counts = records.faults.counts
    notes = []
    if records.dropped:
        notes.append(f"{records.dropped} boxes under a pixel or outside their image left out")
    for name, kind in FAULT_KINDS.items():
        if counts[name] and name not in BOXES_DROPPED:
            notes.append(f"{counts[name]} {kind.title}{' left out' if kind.rule == 'left out' else ''}")
    return notes


def check_images(records: Records, data: DataConfig) -> None:
    """Raise UserError if an image file is missing, or too large according to the annotations."""
    for image in records.images:
        try:
            check_pixels(image.width, image.height, data.max_pixels, image.path)
        except ImageTooLarge as error:
            raise UserError(f"{error} (listed in {records.source}, id {image.id})") from error
        if not is_file(image.path):
            raise UserError(f"{image.path}: no such image (listed in {records.source}, id {image.id})")
