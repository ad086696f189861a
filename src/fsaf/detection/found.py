"""The detections of one picture or view as arrays: what every network gives, whatever runs it."""

from typing import NamedTuple

import numpy as np


class Found(NamedTuple):
    """Detections, best first."""

    boxes: np.ndarray
    """(n, 4) float32 x1, y1, x2, y2."""
    scores: np.ndarray
    """(n,) float32."""
    labels: np.ndarray
    """(n,) int64."""
    levels: np.ndarray | None
    """(n,) int64 pyramid levels; None if not known."""
