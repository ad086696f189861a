"""Files whose network is in float16: what is, what is not, and that they detect the same."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

import fsaf
from fsaf.detection.detector import Detector, load
from fsaf.errors import UserError
from fsaf.exporting.export import export_detector
from fsaf.exporting.fp16 import to_float16
from fsaf.exporting.onnx import ExportReport
from fsaf.exporting.reduced import ReducedReport, compare
from random_networks import CONFIG, SIZE, pictures


@pytest.fixture(params=["fixed", "free", "dynamic"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A file in float32 and the same in float16."""
    report: ExportReport = request.getfixturevalue(request.param)
    to_float16(report.path, tmp_path / "model.onnx")
    return report.path, tmp_path / "model.onnx"


@pytest.mark.slow
def test_the_network_alone_is_in_float16(files: tuple[Path, Path]) -> None:
    onnx.checker.check_model(str(files[1]), full_check=True)
    before, after = (onnx.load(path) for path in files)
    assert after.graph.input == before.graph.input and after.graph.output == before.graph.output
    assert after.metadata_props == before.metadata_props

    # Types as onnx infers them, not as the file states them.
    del after.graph.value_info[:]
    typed = onnx.shape_inference.infer_shapes(after, strict_mode=True).graph
    halves = {x.name for x in typed.value_info if x.type.tensor_type.elem_type == TensorProto.FLOAT16}
    halves |= {x.name for x in typed.initializer if x.data_type == TensorProto.FLOAT16}
    in_float = {node.op_type for node in typed.node if not halves & {*node.input, *node.output}}
    in_half = {node.op_type for node in typed.node if halves & {*node.input, *node.output}}
    assert {"InstanceNormalization", "NonMaxSuppression", "TopK", "Less", "Where", "Sub", "Div"} <= in_float
    assert in_half == {"Add", "Cast", "Conv", "Mul", "Relu", "Reshape", "Resize", "Sigmoid"} | (
        in_half & {"Shape"}
    )
    convolutions = [node for node in typed.node if node.op_type == "Conv"]
    assert convolutions and all({*node.input, *node.output} <= halves for node in convolutions)
    sizes = [sum(len(x.raw_data) for x in model.graph.initializer) for model in (before, after)]
    assert sizes[1] < 0.51 * sizes[0]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
def test_it_detects_what_the_float_file_detects(files: tuple[Path, Path], count: int) -> None:
    before, after = (load(path) for path in files)
    report = ReducedReport(precision="fp16", float_megabytes=1.0)
    compare(before.network, after.network, [pictures(count)], CONFIG, report)
    assert report.found == report.detections > 10 * count
    assert 0 < report.score_difference < 0.002


@pytest.mark.slow
def test_coordinates_keep_their_digits(free: ExportReport, tmp_path: Path) -> None:
    """In float16 those above 2048 would be even numbers."""
    to_float16(free.path, tmp_path / "model.onnx")
    images = torch.zeros(1, 3, 32, 3200, dtype=torch.uint8)
    images[..., 3008:] = pictures(2)[0][1, :, :32].repeat(1, 1, 2)
    expected, found = (
        load(path).detect(images, torch.tensor([[32, 3200]])) for path in (free.path, tmp_path / "model.onnx")
    )
    far = expected.boxes_bm4[..., 0] > 2500
    assert far.sum() > 5
    nearest = torch.cdist(expected.boxes_bm4[far][None], found.boxes_bm4, p=float("inf")).amin(2)
    assert 0 < nearest.median() < 0.05


@pytest.mark.slow
def test_a_file_in_float16(detector: Detector, tmp_path: Path) -> None:
    root = str(detector.config.data.root)
    shown = sorted(Path(root).rglob("*.png"))[:2]
    report = export_detector(detector, tmp_path / "model.onnx", shown, fp16=True, standalone=True)
    made = report.reduced
    assert made is not None and made.precision == "fp16" and made.calibrated_on is None
    assert made.found == made.detections > 5
    assert report.megabytes < 0.65 * made.float_megabytes
    assert "\nfp16: " in report.summary() and "on the validation split: AP 0." in report.summary()
    stored = {x.key: x.value for x in onnx.load(report.path).metadata_props}
    assert json.loads(stored["reduced"]) == asdict(made)
    assert json.loads((tmp_path / "export.json").read_text())["reduced"] == asdict(made)
    metrics = fsaf.evaluate(report.path, data=root)
    assert made.ap_reduced == {name: pytest.approx(metrics[name]) for name in ("AP", "AP50")}


def test_options_that_exclude_each_other(detector: Detector, tmp_path: Path) -> None:
    shown = [np.zeros((*SIZE, 3), np.uint8)]
    with pytest.raises(UserError, match="leave out --fp16 or --int8"):
        export_detector(detector, tmp_path / "a.onnx", shown, fp16=True, calibrate=shown)
    with pytest.raises(UserError, match="leave out --fp16 or --for"):
        export_detector(detector, tmp_path / "a.onnx", shown, fp16=True, target="ascend")
    assert not list(tmp_path.iterdir())
