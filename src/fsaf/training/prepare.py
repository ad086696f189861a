"""Open the data to train and to evaluate on, and check it before training."""

from dataclasses import replace
from pathlib import Path

from fsaf.checking.command import check_command
from fsaf.checking.reach import count_unreachable
from fsaf.config import Config, DataConfig, SplitConfig
from fsaf.data.faults import FAULT_KINDS
from fsaf.data.readers.formats import choose_split
from fsaf.data.readers.splits import check_images, notes_on, open_split, splits_of
from fsaf.data.records import Records, is_trained_on
from fsaf.errors import DataError, UserError


def open_for_training(config: Config) -> tuple[Records, Records | None, list[str]]:
    """Return the data to train on, the data to evaluate on, and notes on what was left out or looks wrong.

    The second is None if the config turns evaluation off or there is no such split. Raises UserError as
    ``open_split`` and ``for_training`` do.
    """
    objective = config.objective if "anchor_free" in config.model.branches else None
    records, notes = for_training(open_split(config.data, "train"), config.data)
    if objective:
        unreachable, boxes = count_unreachable(records, config.data, objective)
        title = FAULT_KINDS["box-no-location"].title
        if unreachable:
            notes.append(f"{unreachable} of {boxes} {title}, too small for it: {check_command(config)}")
    if not config.train.evaluate_every:
        return records, None, notes
    if (why := _no_validation(config.data)) is not None:
        return records, None, [*notes, f"{why}, so nothing is evaluated and there is no best.pt"]
    validation = check_images(open_split(config.data, "val", records.classes), config.data)
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
    if len(large) < len(records.images):
        notes.append(f"{len(records.images) - len(large)} images under {data.min_size} pixels left out")
    if len(kept) < len(large):
        notes.append(f"{len(large) - len(kept)} images without boxes left out")
    if not large:
        raise DataError(f"{records.source}: every image is under {data.min_size} pixels (data.min_size)")
    if not kept:
        raise DataError(
            f"{records.source}: every image is under {data.min_size} pixels (data.min_size) or without boxes "
            "(data.keep_empty)"
        )
    left = check_images(replace(records, images=kept), data)
    if not any((~image.crowd).any() for image in left.images):
        raise DataError(f"{records.source}: every image with boxes is damaged (data.on_bad_image: skip)")
    notes += notes_on(left)
    if over := sum(len(image.boxes) > data.max_boxes for image in left.images):
        notes.append(f"{over} {FAULT_KINDS['boxes-over-limit'].title}")
    return left, notes
