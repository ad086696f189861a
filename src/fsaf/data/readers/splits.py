"""Open the splits that a config names, or that are found in its folder, and check them."""

from pathlib import Path

from fsaf.config import DataConfig, SplitConfig
from fsaf.data.damaged import settle_damaged
from fsaf.data.decode import ImageTooLarge, check_pixels, is_file
from fsaf.data.faults import BOXES_DROPPED, FAULT_KINDS, Faults
from fsaf.data.readers.formats import choose_split, find_splits, given_split, is_unsplit
from fsaf.data.readers.holdout import HeldOut, Listed, is_image_list
from fsaf.data.readers.rotation import settle_rotation
from fsaf.data.records import Classes, Records, Split
from fsaf.errors import DataError


class NoImages(DataError):
    """A split has no images, or a data set has too few to hold one out."""


def splits_of(data: DataConfig) -> dict[str, Split]:
    """Return the splits that the config names, else those found in ``data.root``, by name.

    Part of a data set that is not split is held out as ``val``.
    """
    root = Path(data.root or ".")
    named: dict[str, Split] = {}
    for name in ("train", "val"):
        given: SplitConfig = getattr(data, name)
        if given.annotations is not None:
            images = None if given.images is None else root / given.images
            named[name] = _given(root, root / given.annotations, images, name)
    if named:
        return named
    splits = find_splits(root)
    if not is_unsplit(splits):
        return splits
    (whole,) = splits.values()
    if data.val_share == 0:
        return {"train": whole}
    return {
        "train": HeldOut(whole=whole, evaluation=False),
        "val": HeldOut(whole=whole, evaluation=True),
    }


def _given(root: Path, annotations: Path, images: Path | None, name: str) -> Split:
    """Return the split that a config names. A list of images belongs to the data found in ``root``."""
    if images is not None or not is_image_list(annotations):
        return given_split(annotations, images, name)
    splits = find_splits(root)
    if not is_unsplit(splits):
        raise DataError(
            f"{annotations}: lists images, for a data set that is not split, but {root} has the splits "
            f"{', '.join(splits)}; leave --data.{name}.annotations out"
        )
    (whole,) = splits.values()
    return Listed(whole=whole, source=annotations)


def open_split(data: DataConfig, name: str, classes: Classes | None = None) -> Records:
    """Read the split ``train`` or ``val``: the one that the config names, else one found in ``data.root``.

    classes: those of a detector, which the data must have. Raises UserError if there is no such split, if it
    has no images, and for every fault that training refuses (``fsaf.data.faults``).
    """
    given: SplitConfig = getattr(data, name)
    if given.annotations is None and (given.images is not None or data.root is None):
        raise DataError(
            f"data.{name}.annotations is not set; give it in the config or as --data.{name}.annotations PATH"
            ", or --data.root FOLDER alone"
        )
    records = find_split(data, name).read(classes, Faults(), data)
    if not records.images:
        raise NoImages(f"{records.source}: lists no images")
    settle_rotation(records, data)
    if data.on_bad_image == "skip":  # in every use of the data, so that their images are the same
        records = settle_damaged(records, data)
    if name == "train":
        records.table = None  # only scoring and checking need it; COCO's takes 60 MB
    return records


def find_split(data: DataConfig, name: str) -> Split:
    """Return the split ``train`` or ``val``. Raises UserError if there is none."""
    root = Path(data.root or ".")
    given: SplitConfig = getattr(data, name)
    if given.annotations is not None:
        images = None if given.images is None else root / given.images
        return _given(root, root / given.annotations, images, name)
    splits = splits_of(DataConfig(root=data.root, val_share=data.val_share))
    chosen = choose_split(splits, name, root)
    if chosen is not None:
        return chosen[1]
    missing = [split.missing for each, split in splits.items() if split.missing and each.startswith(name)]
    raise DataError(
        missing[0]
        if missing
        else f"{root}: has no split to {'train' if name == 'train' else 'evaluate'} on, only "
        f"{', '.join(splits)}; give --data.{name}.annotations and --data.{name}.images"
    )


def notes_on(records: Records, whole: Records | None = None) -> list[str]:
    """Return what reading left out of a split and what looks wrong in it, a line for each kind.

    whole: the split with images that training leaves out, to count among; by default ``records``.
    """
    whole = whole or records
    counts = records.faults.counts
    notes = list(records.notes)
    left_out = [name for name, kind in FAULT_KINDS.items() if kind.rule == "left out"]
    boxes = sum(len(image.boxes) for image in whole.images)
    boxes += sum(counts[name] for name in left_out if FAULT_KINDS[name].title.startswith("boxes"))
    totals = {"boxes": f" of {boxes}", "images": f" of {len(whole.images) + counts['image-skipped']}"}
    if records.dropped:
        notes.append(f"boxes under a pixel or outside their image: {records.dropped} of {boxes} left out")
    for name, kind in FAULT_KINDS.items():
        if counts[name] and name not in (*BOXES_DROPPED, "exif-rotated"):
            total = totals.get(kind.title.split()[0], "")
            end = " left out" if name in left_out else ""
            notes.append(f"{kind.title}: {counts[name]}{total}{end}")
    return notes


def check_images(records: Records, data: DataConfig) -> None:
    """Raise UserError if an image is missing, too large according to the annotations, or cut short."""
    for image in records.images:
        try:
            check_pixels(image.width, image.height, data.max_pixels, image.path)
        except ImageTooLarge as error:
            raise DataError(f"{error} (listed in {records.source}, id {image.id})") from error
        if not is_file(image.path):
            raise DataError(f"{image.path!s:.500}: no such image (listed in {records.source}, id {image.id})")
    if data.on_bad_image != "skip":  # done on opening
        settle_damaged(records, data)
