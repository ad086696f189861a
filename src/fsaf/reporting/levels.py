"""Compare the pyramid levels that boxes learn on with those that their sizes suggest."""

from collections.abc import Sequence

import numpy as np
import torch

from fsaf.checking.reach import resize_boxes
from fsaf.config import DataConfig
from fsaf.data.records import Records
from fsaf.data.shapes import fit_image
from fsaf.objective.select import levels_by_size
from fsaf.scoring.analysis import LEVELS

APART = 0.5
"""Levels that the mean may lie below that of the rule by size."""
LAST = 0.25
"""Share of the steps, the last ones, that the mean is taken over."""
LEAST = 0.005
"""Smaller shares are not shown."""


def shares_by_size(records: Records, data: DataConfig) -> np.ndarray | None:
    """Return the share of the boxes that each level gets by the rule by size, (L,); None without boxes.

    data: settings that the images are resized with, without augmentation.
    """
    boxes, _, _ = resize_boxes(records, lambda size: fit_image(size, data)[0])
    if not len(boxes):
        return None
    level = levels_by_size(torch.from_numpy(boxes)[None], len(LEVELS))[0].numpy()
    return np.bincount(level, minlength=len(LEVELS)) / len(boxes)


def level_advice(shares: Sequence[Sequence[float]], by_size: np.ndarray | None) -> str:
    """Say so if boxes learn on lower levels than their sizes suggest; else return an empty text.

    A low level sees little of a large object, so its boxes stay rough (docs/lab/accuracy.md).
    shares: at each record of training, share of the boxes that chose each level.
    """
    if by_size is None or not shares:
        return ""
    last = np.mean(shares[-max(1, round(LAST * len(shares))) :], 0)
    number = np.arange(len(LEVELS))
    if (by_size - last) @ number < APART:
        return ""
    return (
        f"Boxes learn on low levels: {_text(last)} at the end; by their sizes {_text(by_size)}. Large "
        "objects may then get rough boxes. Compare larger batches, and objective.level_choice at_least_size."
    )


def _text(shares: np.ndarray) -> str:
    named = zip(LEVELS, shares.tolist(), strict=True)
    return ", ".join(f"{name} {share:.0%}" for name, share in named if share >= LEAST)
