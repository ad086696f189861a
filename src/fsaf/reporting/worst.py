"""The pictures that a detector did worst on, with its boxes and the annotated ones drawn."""

import math

import numpy as np
from PIL import Image

from fsaf.annotation.draw import draw_result, to_pil
from fsaf.config import DataConfig
from fsaf.data.records import ImageRecord, Records
from fsaf.data.transforms import read_image
from fsaf.errors import UserError
from fsaf.run_folder.read import jpeg_url
from fsaf.scoring.analysis import SHOWN, Found, Matches, mistakes

EACH = 4
"""Pictures with the most wrong detections, and as many with the most missed boxes."""
_BYTES = 110_000
_LEAST = 400
"""Pixels that the longer side has at least, so that captions leave something to see."""
_RIGHT, _WRONG, _MISSED, _SEEN = 0, 1, 4, 6  # places in ``draw.PALETTE``: blue, orange, yellow, pale blue


def worst_pictures(
    records: Records, found: Found, matches: Matches, data: DataConfig, notes: list[str]
) -> list[tuple[str, str, str]]:
    """Title, JPEG data URL and description of the worst pictures; those without a mistake are none.

    ``matches`` by class. data: how images are read. ``notes`` takes a sentence on one that cannot be.
    """
    false, missed = mistakes(records, found, matches)
    starts = np.cumsum([0, *(len(image.boxes) for image in records.images)])
    order = [("most wrong detections", i) for i in _most(false, missed)]
    order += [("most missed boxes", i) for i in _most(missed, false) if i not in {i for _, i in order}]
    shown = []
    for why, i in order:
        image = records.images[i]
        rows = slice(*np.searchsorted(found.image, (image.id, image.id + 1)))
        try:
            picture = draw_mistakes(
                image,
                found.pick(np.arange(rows.start, rows.stop)),
                np.where(matches.right[rows], matches.truth[rows] - starts[i], -1),
                matches.ignored[rows],
                records.classes.names,
                data,
            )
            url = jpeg_url(picture, _BYTES)
        except (UserError, OSError) as error:
            notes.append(f"a picture cannot be shown: {error}")
            continue
        shown.append((f"{image.path.name}: {why}", url, f"{false[i]} wrong, {missed[i]} missed"))
    return shown


def draw_mistakes(
    image: ImageRecord,
    found: Found,
    truth: np.ndarray,
    ignored: np.ndarray,
    names: tuple[str, ...],
    data: DataConfig,
) -> Image.Image:
    """An image with its detections from ``SHOWN`` on: right ones blue, wrong ones orange with name and score;
    dashed its annotated boxes: missed ones yellow, found ones pale, crowd regions left out. Small images are
    enlarged by a whole number.

    found: the image's. truth (P,): the position of the box that each found, negative for none. ignored (P,):
    those in crowd regions, not drawn.
    """
    picture = to_pil(read_image(image.path, data.exif_rotation, data.max_pixels))
    grow = max(1, math.ceil(_LEAST / max(picture.size)))
    picture = picture.resize((picture.width * grow, picture.height * grow))
    rows = np.flatnonzero((found.score >= SHOWN) & ~ignored)
    right = truth[rows] >= 0
    seen = np.zeros(len(image.boxes), bool)
    seen[truth[rows][right]] = True
    captions = [f"{names[label]} {score:.2f}" for label, score in zip(found.label, found.score, strict=True)]
    return draw_result(
        picture,
        found.boxes[rows] * grow,
        np.where(right, _RIGHT, _WRONG),
        names=["" if fine else captions[row] for row, fine in zip(rows, right, strict=True)],
        truth_boxes=image.boxes[~image.crowd] * grow,
        truth_labels=np.where(seen, _SEEN, _MISSED)[~image.crowd],
        line_width=max(
            3, round(0.008 * math.sqrt(picture.width * picture.height))
        ),  # for pages that show it smaller
    )


def _most(counts: np.ndarray, others: np.ndarray) -> list[int]:
    """Positions of the highest counts over zero; of equal ones that with more of the others first."""
    order = np.lexsort((-others, -counts))[:EACH]
    return [int(i) for i in order if counts[i]]
