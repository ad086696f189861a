"""Opening the splits that a config names, and the checks that come before training."""

from dataclasses import replace
from pathlib import Path

from fsaf.config import Config, DataConfig, ObjectiveConfig, SplitConfig
from fsaf.data.decode import ImageTooLarge, check_pixels, is_file
from fsaf.data.faults import BOXES_DROPPED, KINDS, Faults
from fsaf.data.formats import choose_split, find_splits, given_split
from fsaf.data.reach import count_unreachable
from fsaf.data.records import Classes, Records
from fsaf.errors import UserError


def open_split(data: DataConfig, name: str, classes: Classes | None = None) -> Records:
    """Read the split ``train`` or ``val``: the one that the config names, else that found in ``data.root``.

    classes: those of a checkpoint, to which the data's are held. Raises UserError where there is no such
    split, where it has no images, and for every fault that training refuses (``fsaf.data.faults``).
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
        where = chosen[1]
    elif split.annotations is None:
        raise UserError(
            f"data.{name}.annotations is not set; give it in the config or as --data.{name}.annotations PATH"
            ", or --data.root FOLDER alone"
        )
    else:
        images = None if split.images is None else root / split.images
        where = given_split(root / split.annotations, images, name)
    records = where.read(classes, Faults(), data)
    if not records.images:
        raise UserError(f"{records.source}: lists no images")
    return records


def open_for_training(config: Config) -> tuple[Records, Records | None, list[str]]:
    """What to train on, what to evaluate on, and notes on what was left out or looks wrong.

    There is nothing to evaluate on where the config says never, or has no such split. Raises UserError as
    ``open_split`` and ``for_training``.
    """
    objective = config.objective if "anchor_free" in config.model.branches else None
    records, notes = for_training(open_split(config.data, "train"), config.data, objective)
    if not config.train.evaluate_every:
        return records, None, notes
    if not _has_validation(config.data):
        return records, None, [*notes, "no validation split, so nothing is evaluated and there is no best.pt"]
    validation = open_split(config.data, "val", records.classes)
    check_images(validation, config.data)
    if validation.source == records.source and validation.format != "yolo":
        notes.append(f"evaluation is on the images of training ({records.source})")
    return records, validation, notes + [f"evaluation: {note}" for note in notes_on(validation)]


def _has_validation(data: DataConfig) -> bool:
    if data.val.annotations is not None or data.val.images is not None:
        return True  # or half of it, which opening refuses
    if data.root is None:
        return False
    root = Path(data.root)
    return choose_split(find_splits(root), "val", root) is not None


def for_training(
    records: Records, data: DataConfig, objective: ObjectiveConfig | None = None
) -> tuple[Records, list[str]]:
    """What training learns from, and notes on what was left out or looks wrong.

    Images without boxes (unless ``data.keep_empty``) and with a side under ``data.min_size`` go.
    objective: note how many boxes it gives no location; None where boxes are learned otherwise.
    Raises UserError where nothing is left, and for images that are not there or too large.
    """
    boxes = sum(int((~image.crowd).sum()) for image in records.images)
    if boxes == 0:
        raise UserError(f"{records.source}: no boxes at all; there is nothing to learn")
    large = [image for image in records.images if min(image.width, image.height) >= data.min_size]
    kept = [image for image in large if data.keep_empty or len(image.boxes)]
    notes = []
    if len(large) < len(records.images):
        notes.append(f"{len(records.images) - len(large)} images under {data.min_size} pixels left out")
    if len(kept) < len(large):
        notes.append(f"{len(large) - len(kept)} images without boxes left out")
    notes += notes_on(records)
    if not large:
        raise UserError(f"{records.source}: every image is under {data.min_size} pixels (data.min_size)")
    if not kept:
        raise UserError(
            f"{records.source}: every image is under {data.min_size} pixels (data.min_size) or without boxes "
            "(data.keep_empty)"
        )
    left = replace(records, images=kept)
    check_images(left, data)
    if objective and (unreachable := count_unreachable(left, data, objective)):
        notes.append(
            f"{unreachable} {KINDS['box-no-location'].title}, too small for it: `fsaf check` lists them"
        )
    return left, notes


def notes_on(records: Records) -> list[str]:
    """What reading left out of a split, and what looks wrong in it, a line for each kind."""
    counts = records.faults.counts
    notes = []
    if records.dropped:
        notes.append(f"{records.dropped} boxes under a pixel or outside their image left out")
    for name, kind in KINDS.items():
        if counts[name] and name not in BOXES_DROPPED:
            notes.append(f"{counts[name]} {kind.title}{' left out' if kind.rule == 'left out' else ''}")
    return notes


def check_images(records: Records, data: DataConfig) -> None:
    """Raise UserError for an image file that is not there, or that the annotations say is too large."""
    for image in records.images:
        try:
            check_pixels(image.width, image.height, data.max_pixels, image.path)
        except ImageTooLarge as error:
            raise UserError(f"{error} (listed in {records.source}, id {image.id})") from error
        if not is_file(image.path):
            raise UserError(f"{image.path}: no such image (listed in {records.source}, id {image.id})")
