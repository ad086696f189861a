"""Open the data to train and to evaluate on, and check it before training."""

from dataclasses import replace
from pathlib import Path

from fsaf.checking.command import check_command
from fsaf.checking.reach import count_unreachable
from fsaf.config import Config, DataConfig, SplitConfig
from fsaf.data.faults import FAULT_KINDS
from fsaf.data.readers.formats import choose_split
from fsaf.data.readers.holdout import HeldOut
from fsaf.data.readers.splits import NoImages, check_images, find_split, notes_on, open_split, splits_of
from fsaf.data.records import ImageRecord, Records, is_trained_on
from fsaf.errors import DataError, UserError
from fsaf.text import counted, printable
from fsaf.training.fit import fit_size


def open_for_training(config: Config) -> tuple[Records, Records | None, list[str]]:
    """Return the data to train on, the data to evaluate on, and notes on what was left out or looks wrong.

    The second is None if the config turns evaluation off or there is no such split. Raises UserError as
    ``open_split`` and ``for_training`` do.
    """
    records, notes = for_training(open_split(config.data, "train"), config.data)
    config, _ = fit_size(config, records)
    if "anchor_free" in config.model.branches:
        unreachable, boxes = count_unreachable(records, config.data, config.objective)
        if unreachable == boxes and config.model.branches == ["anchor_free"]:
            raise DataError(
                f"{records.source}: none of its {counted(boxes, 'box', 'boxes')} can be learned, all being "
                f"too small after resizing. Raise data.short_side and data.long_side; {check_command(config)}"
            )
        if unreachable:
            notes.append(
                f"{FAULT_KINDS['box-no-location'].title}: {unreachable} of {boxes}, too small for it"
            )
    if notes:
        notes.append(f"list what is left out or looks wrong with: {check_command(config)}")
    if not config.train.evaluate_every:
        return records, None, notes
    if (why := _no_validation(config.data)) is not None:
        return records, None, [*notes, f"{why}, so nothing is evaluated and there is no best.pt"]
    try:
        validation = open_split(config.data, "val", records.classes)
    except NoImages:
        if not isinstance(find_split(config.data, "val"), HeldOut):
            raise
        return records, None, [*notes, "too few images to hold one out, so nothing is evaluated"]
    check_images(validation, config.data)
    both = {image.path for image in validation.images} & {image.path for image in records.images}
    if both:
        notes.append(f"evaluation is on {len(both)} images of training, so AP does not show overfitting")
    return records, validation, notes + [f"evaluation: {note}" for note in notes_on(validation)]


def _no_validation(data: DataConfig) -> str | None:
    """Return why there is no split to evaluate on; None if there is one."""
    if data.val.annotations is not None or data.val.images is not None:
        return None  # opening refuses one without the other
    if data.root is None:
        return "no validation split"
    try:
        splits = splits_of(replace(data, train=SplitConfig(), val=SplitConfig()))
    except UserError:
        if data.train.annotations is None:
            raise
        return "no validation split"  # the root need not be a data set of its own
    if choose_split(splits, "val", Path(data.root)) is not None:
        return None
    missing = [split.missing for split in splits.values() if split.missing]
    return f"no validation split ({missing[0]})" if missing else "no validation split"


def for_training(records: Records, data: DataConfig) -> tuple[Records, list[str]]:
    """Return the images to train on, and notes on what was left out or looks wrong.

    Images without boxes (unless ``data.keep_empty``) or with a side under ``data.min_size`` are left out.
    Raises UserError if nothing is left, or an image is missing or too large.
    """
    boxes = sum(int((~image.crowd).sum()) for image in records.images)
    if boxes == 0:
        raise DataError(f"{records.source}: no boxes at all; there is nothing to learn")
    large = [image for image in records.images if min(image.width, image.height) >= data.min_size]
    kept = [image for image in records.images if is_trained_on(image, data)]
    notes = []
    count = len(records.images)
    if small := count - len(large):
        notes.append(
            f"images with a side under {data.min_size} pixels (data.min_size): {small} of {count} left out"
        )
    if empty := len(large) - len(kept):
        notes.append(
            f"images without boxes: {empty} of {count} left out; --data.keep_empty true trains on them"
        )
    if not large:
        raise DataError(f"{records.source}: every image is under {data.min_size} pixels (data.min_size)")
    if not kept:
        raise DataError(
            f"{records.source}: every image is under {data.min_size} pixels (data.min_size) or without boxes "
            "(data.keep_empty)"
        )
    left = replace(records, images=kept)
    check_images(left, data)
    notes += notes_on(left, records) + _over_limit(left.images, data.max_boxes) + _missing_classes(left)
    return left, notes


def _over_limit(images: list[ImageRecord], limit: int) -> list[str]:
    """Return a note on images with more boxes than a batch takes."""
    boxes = [len(image.boxes) for image in images]
    if not (over := [number for number in boxes if number > limit]):
        return []
    lost = sum(over) - limit * len(over)
    return [
        f"images with more than {limit} boxes (data.max_boxes): {len(over)} of {len(boxes)}, which lose "
        f"{lost} of {sum(boxes)} boxes, the smallest"
    ]


def _missing_classes(records: Records, most: int = 8) -> list[str]:
    """Return a note on classes without a box to train on."""
    seen = {label for image in records.images for label in image.labels[~image.crowd].tolist()}
    names = [name for label, name in enumerate(records.classes.names) if label not in seen]
    if not names:
        return []
    shown = ", ".join(names[:most]) + ("..." if len(names) > most else "")
    return [f"classes without a box to train on: {len(names)} of {len(records.classes)} ({printable(shown)})"]
