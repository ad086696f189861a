"""The pictures with most mistakes, with detections and annotated boxes drawn."""

import math

import numpy as np
from PIL import Image

from fsaf.config import DataConfig
from fsaf.data.records import ImageRecord, Records
from fsaf.data.samples import read_record
from fsaf.detection.draw import draw_result, to_pil
from fsaf.errors import UserError
from fsaf.run_folder.read import jpeg_url
from fsaf.scoring.analysis import SHOWN, mistakes
from fsaf.scoring.matching import Matches, Predictions

EACH = 4
"""Number of pictures with most wrong detections, and of those with most missed boxes."""
_BYTES = 110_000
_LEAST = 400
"""Minimum of the longer side in pixels, so that captions do not cover the picture."""
_RIGHT, _WRONG, _MISSED, _SEEN = 0, 1, 4, 6  # places in ``draw.PALETTE``: blue, orange, yellow, pale blue


def worst_pictures(
    records: Records, predictions: Predictions, matches: Matches, data: DataConfig, notes: list[str]
) -> list[tuple[str, str, str]]:
    """Return title, JPEG data URL and description of the pictures with most mistakes.

    matches: by class. data: settings that images are read with. notes: gets a sentence on each picture that
    cannot be read.
    """
    false, missed = mistakes(records, predictions, matches)
    starts = np.cumsum([0, *(len(image.boxes) for image in records.images)])
    order = [("most wrong detections", i) for i in _most(false, missed)]
    order += [("most missed boxes", i) for i in _most(missed, false) if i not in {i for _, i in order}]
    shown = []
    for why, i in order:
        image = records.images[i]
        rows = slice(*np.searchsorted(predictions.image, (image.id, image.id + 1)))
        try:
            picture = draw_mistakes(
                image,
                predictions.pick(np.arange(rows.start, rows.stop)),
                np.where(matches.right[rows], matches.truth[rows] - starts[i], -1),
                matches.ignored[rows],
                records,
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
    predictions: Predictions,
    truth: np.ndarray,
    ignored: np.ndarray,
    records: Records,
    data: DataConfig,
) -> Image.Image:
    """Draw the detections of an image from score ``SHOWN`` on, and its annotated boxes.

    Right detections are blue; wrong ones orange, with name and score. Annotated boxes are dashed: missed ones
    yellow, detected ones pale; crowd regions are left out. Small images are enlarged by a whole number.

    predictions: those of the image. truth (P,): position of the box that each prediction matches, negative
    for none. ignored (P,): predictions in crowd regions, which are not drawn.
    """
    picture = to_pil(read_record(image, records, data))
    grow = max(1, math.ceil(_LEAST / max(picture.size)))
    picture = picture.resize((picture.width * grow, picture.height * grow))
    rows = np.flatnonzero((predictions.score >= SHOWN) & ~ignored)
    right = truth[rows] >= 0
    seen = np.zeros(len(image.boxes), bool)
    seen[truth[rows][right]] = True
    captions = [
        f"{records.classes.names[label]} {score:.2f}"
        for label, score in zip(predictions.label, predictions.score, strict=True)
    ]
    return draw_result(
        picture,
        predictions.boxes[rows] * grow,
        np.where(right, _RIGHT, _WRONG),
        names=["" if fine else captions[row] for row, fine in zip(rows, right, strict=True)],
        truth_boxes=image.boxes[~image.crowd] * grow,
        truth_labels=np.where(seen, _SEEN, _MISSED)[~image.crowd],
        line_width=max(
            3, round(0.008 * math.sqrt(picture.width * picture.height))
        ),  # the page shows it smaller
    )


def _most(counts: np.ndarray, others: np.ndarray) -> list[int]:
    """Return the positions of the highest counts above zero; ties are ordered by the counts in ``others``."""
    order = np.lexsort((-others, -counts))[:EACH]
    return [int(i) for i in order if counts[i]]
