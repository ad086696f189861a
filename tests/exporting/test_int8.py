"""Files of 8 bits: what is quantised, what is measured, when nothing is written."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import fsaf
from fsaf.config import Config
from fsaf.detection.detector import Detector
from fsaf.errors import UserError
from fsaf.exporting import int8, reduced
from fsaf.exporting.export import export_detector
from synthetic import CLASSES


def run_in_float(path: Path, folder: Path) -> set[str]:
    """Return the weights of the convolutions that onnxruntime runs in float after optimising the file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(folder / "optimised.onnx").graph.node
    return {node.input[1] for node in nodes if node.op_type in ("Conv", "FusedConv")}


@pytest.mark.slow
def test_a_file_of_8_bits(
    detector: Detector,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
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
    assert run_in_float(path, tmp_path_factory.mktemp("run")) == in_float, "convolutions run in float"
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
    assert not list(here.iterdir()), "onnxruntime's tools leave files in the working directory"


def test_atc_quantises_itself(detector: Detector, tmp_path: Path) -> None:
    pictures = sorted(Path(str(detector.config.data.root)).rglob("*.png"))
    with pytest.raises(UserError, match="leave out --int8 or --for"):
        export_detector(detector, tmp_path / "a.onnx", pictures[:1], target="ascend", calibrate=pictures)


def test_missing_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"--int8 needs the package onnx: pip install 'fsaf\[export\]'"):
        int8.quantise(tmp_path / "a.onnx", tmp_path / "b.onnx", [], Config())


def test_a_relu_is_part_of_its_convolution(tmp_path: Path) -> None:
    """Otherwise values that it cuts off would take part of the 8 bits."""
    weights = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    names = ("a.weight", "b.weight", "head.classes.weight")
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "a.weight"], ["a"], name="a"),
        helper.make_node("Clip", ["a", "low", "high"], ["cut"], name="cut"),
        helper.make_node("Conv", ["cut", "b.weight"], ["b"], name="b"),
        helper.make_node("Relu", ["b"], ["kept"], name="kept"),
        helper.make_node("Conv", ["kept", "head.classes.weight"], ["y"], name="y"),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, [1, 3, 32, 32])
    found = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 32, 32])
    limits = [numpy_helper.from_array(np.float32(x), name) for name, x in (("low", 0), ("high", 6))]
    constants = [*limits, *(numpy_helper.from_array(weights, name) for name in names)]
    graph = helper.make_graph(nodes, "two", [images], [found], constants)
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), source)
    config = replace(Config(), model=replace(Config().model, mean=(0.0, 0.0, 0.0)))
    shown = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    int8.quantise(source, target, [(shown, torch.tensor([[32, 32]]))], config)
    made = {name: node for node in onnx.load(target).graph.node for name in node.output}
    assert not [node for node in made.values() if node.op_type in ("Clip", "Relu")]
    inputs = [node.input[:2] for node in made.values() if node.op_type == "Conv"]
    kinds = [[made[x].op_type if x in made else "weight" for x in pair] for pair in inputs]
    assert kinds == [["DequantizeLinear"] * 2, ["DequantizeLinear"] * 2, ["DequantizeLinear", "weight"]]
