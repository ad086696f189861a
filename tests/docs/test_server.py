"""The server of docs/predicting.md."""

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detection.comparing import noise
from documents import ROOT, blocks
from fsaf.config import Config, DataConfig
from fsaf.detection.detector import Detector
from random_networks import CLASSES, CONFIG, random_network

fastapi = pytest.importorskip("fastapi", reason="fastapi is not installed; gradio brings it")
testclient = pytest.importorskip("fastapi.testclient", reason="the client of fastapi is not installed")


def test_the_server_answers(tmp_path: Path) -> None:
    config = Config(data=DataConfig(short_side=64, long_side=96), model=CONFIG.model)
    detector = Detector(random_network(config), CLASSES, config)
    detector.save(tmp_path / "best.pt")
    (block,) = (x for x in blocks(ROOT / "docs" / "predicting.md") if "fastapi" in x.text)
    names: dict[str, Any] = {}
    exec(block.text.replace("runs/mine/checkpoints/best.pt", str(tmp_path / "best.pt")), names)
    client = testclient.TestClient(names["app"])
    picture = noise(64, 96)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")

    def ask(content: bytes, **options: Any) -> Any:
        return client.post("/predict", files={"file": ("a.png", content)}, params=options)

    answer = ask(file.getvalue(), score_threshold=0.05)
    assert answer.status_code == 200
    found = answer.json()
    assert found["size"] == [64, 96] and len(found["detections"]) == 100
    assert ask(file.getvalue()).json()["detections"] != found["detections"]
    refused = ask(b"no picture")
    assert refused.status_code == 422 and "does not decode" in refused.json()["detail"]
    assert "score_threshold = 2" in ask(file.getvalue(), score_threshold=2).json()["detail"]
