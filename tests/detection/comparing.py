"""Random pictures, and results that must be equal."""

import numpy as np

from fsaf.detection.detector import Result


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a picture of random pixels: (H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def same(left: Result, right: Result, atol: float = 0.0) -> None:
    """Assert that two results have the same detections in the same order."""
    assert left.size == right.size and left.names == right.names
    assert left.labels.tolist() == right.labels.tolist()
    np.testing.assert_allclose(left.boxes, right.boxes, rtol=0, atol=atol)
    np.testing.assert_allclose(left.scores, right.scores, rtol=0, atol=atol)
