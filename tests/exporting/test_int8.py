"""Files of 8 bits: what is quantised, what is measured, when nothing is written."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor

import fsaf
from fsaf.config import Config, DataConfig
from fsaf.detection.detector import Detector
from fsaf.detection.network import TorchNetwork
from fsaf.detection.postprocess import Detections
from fsaf.errors import UserError
from fsaf.exporting import int8
from fsaf.exporting.export import export_detector
from fsaf.exporting.int8 import Int8Report, compare
from random_networks import CONFIG, random_network
from synthetic import CLASSES, write_eight


class Finds:
    """A network that finds given boxes."""

    def __init__(self, *rows: tuple[Sequence[float], float, int]) -> None:
        boxes, scores, labels = (torch.tensor([column]) for column in zip(*rows, strict=True))
        self.found = Detections(boxes, scores, labels)

    def detect(self, *_: object) -> Detections:
        return self.found


def test_each_detection_is_found_once_with_its_class() -> None:
    box, near, far = (0.0, 0.0, 10.0, 10.0), (0.0, 1.0, 10.0, 10.0), (20.0, 20.0, 30.0, 30.0)
    before = Finds((box, 0.9, 0), (near, 0.8, 0), (far, 0.7, 1), (far, 0.2, 2), (box, 0.0, -1))
    after = Finds((near, 0.7, 0), (far, 0.9, 0), (far, 0.1, 1))
    report = Int8Report(calibrated_on=1, float_megabytes=1.0)
    compare(before, after, [(Tensor(), Tensor())], Config(), report)  # type: ignore[arg-type]
    assert (report.detections, report.found) == (3, 2)
    assert report.score_difference == pytest.approx((0.2 + 0.6) / 2)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    root = tmp_path_factory.mktemp("data")
    write_eight(root)
    data = DataConfig(root=str(root), short_side=64, long_side=96, shapes=[(64, 96)], workers=0)
    return Detector(TorchNetwork(random_network(CONFIG)), CLASSES, replace(CONFIG, data=data))


@pytest.mark.slow
def test_a_file_of_8_bits(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    pictures = sorted(Path(str(detector.config.data.root)).rglob("*.png"))
    report = export_detector(detector, path, pictures[:2], calibrate=pictures, batch=3)
    made = report.int8
    assert made is not None and made.calibrated_on == len(pictures) == 11
    assert made.found >= 0.8 * made.detections > 5
    assert "on the validation split: AP 0." in report.summary()

    model = onnx.load(path)
    weights = {x.name for x in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    in_float = {node.input[1] for node in convolutions if node.input[1] in weights}
    assert in_float == {"model.head.classes.weight", "model.head.distances.weight"}
    stored = {x.key: x.value for x in model.metadata_props}
    assert json.loads(stored["int8"]) == asdict(made)
    assert json.loads((tmp_path / "export.json").read_text())["int8"] == asdict(made)
    metrics = fsaf.evaluate(path, data=str(detector.config.data.root))
    assert made.ap_int8 == {name: pytest.approx(metrics[name]) for name in ("AP", "AP50")}

    before = path.read_bytes()
    elsewhere = replace(detector.config, data=replace(detector.config.data, root=None))
    monkeypatch.setattr(int8, "FOUND_SHARE", 1.01)
    with pytest.raises(UserError, match="not written, because in 8 bits only"):
        export_detector(
            Detector(detector.network, CLASSES, elsewhere), path, pictures[:2], calibrate=pictures[:2]
        )
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_the_summary_says_why_there_is_no_ap() -> None:
    report = Int8Report(calibrated_on=1, float_megabytes=1.0, no_ap="no such folder")
    assert "AP before and after not measured: no such folder" in report.summary()
    assert "warning: nothing is detected" in report.summary()
    assert "warning" not in replace(report, detections=2, found=2).summary()


def test_atc_quantises_itself(detector: Detector, tmp_path: Path) -> None:
    pictures = sorted(Path(str(detector.config.data.root)).rglob("*.png"))
    with pytest.raises(UserError, match="leave out --int8 or --for"):
        export_detector(detector, tmp_path / "a.onnx", pictures[:1], target="ascend", calibrate=pictures)


def test_missing_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"--int8 needs the package onnx: pip install 'fsaf\[export\]'"):
        int8.quantise(tmp_path / "a.onnx", tmp_path / "b.onnx", [], Config())
