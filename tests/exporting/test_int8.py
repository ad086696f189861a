"""Files of 8 bits: what is quantised, what is measured, when nothing is written."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import onnx
import pytest

import fsaf
from fsaf.config import Config
from fsaf.detection.detector import Detector
from fsaf.errors import UserError
from fsaf.exporting import int8, reduced
from fsaf.exporting.export import export_detector
from synthetic import CLASSES


@pytest.mark.slow
def test_a_file_of_8_bits(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    pictures = sorted(Path(str(detector.config.data.root)).rglob("*.png"))
    report = export_detector(detector, path, pictures[:2], calibrate=pictures, batch=3)
    made = report.reduced
    assert made is not None and made.calibrated_on == len(pictures) == 11
    assert made.found >= 0.8 * made.detections > 5
    assert "on the validation split: AP 0." in report.summary()

    model = onnx.load(path)
    weights = {x.name for x in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    in_float = {node.input[1] for node in convolutions if node.input[1] in weights}
    assert in_float == {"model.head.classes.weight", "model.head.distances.weight"}
    stored = {x.key: x.value for x in model.metadata_props}
    assert json.loads(stored["reduced"]) == asdict(made)
    assert json.loads((tmp_path / "export.json").read_text())["reduced"] == asdict(made)
    metrics = fsaf.evaluate(path, data=str(detector.config.data.root))
    assert made.ap_reduced == {name: pytest.approx(metrics[name]) for name in ("AP", "AP50")}

    before = path.read_bytes()
    elsewhere = replace(detector.config, data=replace(detector.config.data, root=None))
    monkeypatch.setattr(reduced, "FOUND_SHARE", 1.01)
    with pytest.raises(UserError, match="not written, because in int8 only"):
        export_detector(
            Detector(detector.network, CLASSES, elsewhere), path, pictures[:2], calibrate=pictures[:2]
        )
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_atc_quantises_itself(detector: Detector, tmp_path: Path) -> None:
    pictures = sorted(Path(str(detector.config.data.root)).rglob("*.png"))
    with pytest.raises(UserError, match="leave out --int8 or --for"):
        export_detector(detector, tmp_path / "a.onnx", pictures[:1], target="ascend", calibrate=pictures)


def test_missing_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"--int8 needs the package onnx: pip install 'fsaf\[export\]'"):
        int8.quantise(tmp_path / "a.onnx", tmp_path / "b.onnx", [], Config())
