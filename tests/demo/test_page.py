"""The demo page: what it answers, and what it refuses."""

import numpy as np
import pytest
import torch
from PIL import Image

from fsaf.config import Config, DataConfig, ModelConfig
from fsaf.data.records import Classes
from fsaf.demo import page
from fsaf.model.detector import FSAF
from fsaf.results.predict import Detector


@pytest.fixture
def detector(tiny_model_config: ModelConfig) -> Detector:
    """An untrained detector that finds something everywhere."""
    model = FSAF(tiny_model_config, 2).eval()
    assert model.head.classes.bias is not None
    torch.nn.init.constant_(model.head.classes.bias, 0.5)
    config = Config(model=tiny_model_config, data=DataConfig(short_side=64, long_side=96, pad=32))
    return Detector(model, Classes(names=("cat", "dog"), ids=(1, 2)), config)


def test_the_answer_is_the_picture_with_the_detections_listed_in_its_pixels(detector: Detector) -> None:
    picture = Image.fromarray(np.full((128, 192, 3), 90, np.uint8))
    drawn, rows = page.detect(detector, picture, 0.3)
    expected = detector.predict(picture, score_threshold=0.3)
    assert drawn.size == picture.size
    assert len(rows) == len(expected) > 0
    assert [row[0] for row in rows] == expected.names
    assert np.array([row[2:] for row in rows]) == pytest.approx(expected.boxes, abs=0.51)


def test_a_huge_picture_is_refused(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    gradio = pytest.importorskip("gradio")
    monkeypatch.setattr(page, "PIXELS", 100)
    app = page.make_page(detector, "test")
    answer = next(iter(app.fns.values())).fn
    with pytest.raises(gradio.Error, match="million pixels"):
        answer(Image.new("RGB", (20, 20)), 0.3)
