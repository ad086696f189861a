"""A picture of training images as the network sees them: resized, augmented, padded, with their boxes."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fsaf.config import Config
from fsaf.data.batch import Batch
from fsaf.data.records import Records
from fsaf.data.sampler import ShapeBatches
from fsaf.data.samples import Images, Sample
from fsaf.data.workers import make_loader
from fsaf.detection.draw import caption_font, contact_sheet, draw_result
from fsaf.errors import UserError
from fsaf.files import whole
from fsaf.text import counted, printable
from fsaf.training.fit import fit_to_data
from fsaf.training.prepare import open_for_training
from fsaf.training.session import Session

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
COLUMNS, COUNT = 3, 12
CELL = 640
"""Pixels that the longer side of an image is shrunk to if it is longer."""
AT_START = "preview.jpg"
"""File of a run folder, of the first batch, with fewer and smaller images."""
START_COLUMNS, START_COUNT, START_CELL = 2, 6, 480
LINE = 22
"""Height of a caption in pixels."""
STRIPES = (40, 70)
"""Grey values of the stripes that stand for padding."""

Collate = Callable[[list[Sample | UserError]], Batch | UserError]


def check_file(path: Path) -> None:
    """Raise UserError if a preview cannot be written to a file of this name."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"--preview {path}: must end in {' or '.join(FORMATS)}")
    if path.is_dir():
        raise UserError(
            f"--preview {path}: is a folder; name the picture to write, such as {path}/preview.png"
        )


def write_preview(config: Config, path: Path, processes: int = 1) -> None:
    """Write a picture of the first images that training with ``config`` would see, without training.

    Raises UserError for mistakes in config or data, and if the file cannot be written.
    """
    check_file(path)
    records, _, _ = open_for_training(config)
    config, _ = fit_to_data(config, len(records.images), processes)
    images = Images(records, config.data, augment=True, seed=config.train.seed)
    loader, sampler = make_loader(
        images,
        config.data.batch_size * config.train.accumulate,
        workers=0,
        train=True,
        seed=config.train.seed,
        world=processes,
    )
    rows = first_rows(images, sampler, loader.collate_fn, COUNT)
    _save(draw_preview(records, rows, COLUMNS, CELL), path)


def keep_preview(session: Session, batch: Batch, say: Callable[[str], None]) -> None:
    """Write ``preview.jpg`` of a batch into the run folder. say: prints why if that fails."""
    rows = [(batch, row) for row in range(min(START_COUNT, len(batch.ids)))]
    try:
        _save(draw_preview(session.records, rows, START_COLUMNS, START_CELL), session.run.out / AT_START)
    except UserError as error:
        say(f"note: no preview of the training images ({error})")


def draw_preview(records: Records, rows: Iterable[tuple[Batch, int]], columns: int, cell: int) -> Image.Image:
    """Draw images of batches, each given as a batch and its row.

    cell: longest side of an image in pixels. Padding is striped, crowd regions are dashed.
    """
    files = {image.id: image.path.name for image in records.images}
    cells = [_draw_row(batch, row, records.classes.names, files[batch.ids[row]], cell) for batch, row in rows]
    width = max(picture.width for picture in cells)
    return contact_sheet([_widened(picture, width) for picture in cells], columns, width=width)


def first_rows(
    images: Images, sampler: ShapeBatches, collate: Collate, count: int
) -> Iterator[tuple[Batch, int]]:
    """Yield ``count`` images, each as a batch and its row; fewer if an epoch has fewer.

    images, sampler, collate: of a loader, in whose order they come.
    """
    for draws in sampler:
        # The padding of a batch without a fixed shape depends on all of its images.
        batch = collate([images[draw] for draw in (draws[:count] if draws[0].shape else draws)])
        if isinstance(batch, UserError):
            raise batch
        for row in range(min(count, len(batch.ids))):
            yield batch, row
        count -= len(batch.ids)
        if count <= 0:
            return


def _draw_row(batch: Batch, row: int, names: tuple[str, ...], file: str, cell: int) -> Image.Image:
    """Draw one image of a batch with its boxes, and a caption below it."""
    pixels = batch.images[row].permute(1, 2, 0).numpy().copy()
    height, width = (int(side) for side in batch.boxes.sizes[row])
    padded = pixels.shape[:2]
    stripes = np.array(STRIPES, np.uint8)[np.add.outer(np.arange(padded[0]), np.arange(padded[1])) // 8 % 2]
    inside = np.zeros(padded, bool)
    inside[:height, :width] = True
    pixels = np.where(inside[:, :, None], pixels, stripes[:, :, None])
    picture = Image.fromarray(pixels)
    scale = min(1.0, cell / max(padded))
    if scale < 1:
        size = (max(1, round(padded[1] * scale)), max(1, round(padded[0] * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    valid, crowd = batch.boxes.valid[row].numpy(), batch.boxes.crowd[row].numpy()
    boxes, labels = batch.boxes.xyxy[row].numpy() * scale, batch.boxes.labels[row].numpy()
    objects, ignored = valid & ~crowd, valid & crowd
    drawn = draw_result(
        picture,
        boxes[objects],
        labels[objects],
        names=[names[label] for label in labels[objects]],
        truth_boxes=boxes[ignored],
        truth_labels=labels[ignored],
    )
    region = f", {int(ignored.sum())} ignored" if ignored.any() else ""
    shape = f"{height} x {width} in {padded[0]} x {padded[1]}"
    return _captioned(
        drawn, f"{shape}, {counted(int(objects.sum()), 'box', 'boxes')}{region}: {printable(file)}"
    )


def _captioned(picture: Image.Image, text: str) -> Image.Image:
    """Return a picture with a line of text below it."""
    both = Image.new("RGB", (picture.width, picture.height + LINE), (255, 255, 255))
    both.paste(picture)
    draw, sizes = ImageDraw.Draw(both), range(14, 8, -1)
    fonts = (caption_font(text.isascii(), size) for size in sizes)
    font = next((font for font in fonts if draw.textlength(text, font) <= picture.width - 4), None)
    font = font or caption_font(text.isascii(), sizes[-1])  # what does not fit is cut
    draw.text((2, picture.height + LINE / 2), text, fill=(0, 0, 0), font=font, anchor="lm")
    return both


def _widened(picture: Image.Image, width: int) -> Image.Image:
    """Return a picture with white on its right, up to ``width`` pixels."""
    wide = Image.new("RGB", (width, picture.height), (255, 255, 255))
    wide.paste(picture)
    return wide


def _save(picture: Image.Image, path: Path) -> None:
    with whole(path) as draft:
        picture.save(draft, FORMATS[path.suffix.lower()])
