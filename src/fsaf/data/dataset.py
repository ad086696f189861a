"""Opening the splits that a config names, and the checks that come before training."""

from pathlib import Path

from fsaf.config import DataConfig, SplitConfig
from fsaf.data.records import Classes, Records, read_coco
from fsaf.errors import UserError


def open_split(data: DataConfig, name: str, classes: Classes | None = None) -> Records:
    """Read the split ``train`` or ``val``. Raises UserError where the config does not name it, or it has no
    images."""
    split: SplitConfig = getattr(data, name)
    for key in ("annotations", "images"):
        if getattr(split, key) is None:
            raise UserError(
                f"data.{name}.{key} is not set; give it in the config or as --data.{name}.{key} PATH"
            )
    root = Path(data.root) if data.root else Path()
    annotations = root / str(split.annotations)
    if not annotations.is_file():
        raise UserError(f"{annotations}: no such file; check --data.root and --data.{name}.annotations")
    records = read_coco(annotations, root / str(split.images), classes)
    if not records.images:
        raise UserError(f"{records.source}: lists no images")
    return records


def for_training(records: Records, data: DataConfig) -> tuple[Records, list[str]]:
    """What training learns from, and notes on what was left out.

    Images without boxes (unless ``data.keep_empty``) and with a side under ``data.min_size`` go.
    Raises UserError where nothing is left.
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
    if records.dropped:
        notes.append(f"{records.dropped} boxes under a pixel or outside their image left out")
    if not kept:
        raise UserError(f"{records.source}: every image is under {data.min_size} pixels (data.min_size)")
    for image in kept:
        if not image.path.is_file():
            raise UserError(f"{image.path}: no such image (listed in {records.source}, id {image.id})")
    left = Records(images=kept, classes=records.classes, source=records.source, dropped=records.dropped)
    return left, notes
