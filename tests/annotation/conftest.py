"""A detector that needs no training."""

import pytest

from fsaf.config import Config, DataConfig
from fsaf.detection.detector import Detector
from synthetic import CLASSES, SeesColours


@pytest.fixture(scope="module")
def sees() -> Detector:
    """A detector that detects coloured rectangles."""
    return Detector(SeesColours().eval(), CLASSES, Config(data=DataConfig(short_side=64, long_side=96)))
