"""Exported files keep to what the ONNX parser of TensorRT 10.1 lists. TensorRT itself is not run."""

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from fsaf.exporting.fp16 import to_float16
from fsaf.exporting.onnx import ExportReport, export_onnx
from fsaf.model.detector import FSAF
from random_networks import CLASSES, CONFIG, SIZE

pytestmark = pytest.mark.slow

SOURCE = "https://github.com/onnx/onnx-tensorrt/blob/96e781103cfc4adf4a6bb557e94bac8e693f6f4c"
"""``docs/operators.md`` there, of 17 June 2024: opsets 9 to 20, and the operators and restrictions below."""
OPERATORS = """
    Abs Add And Cast Ceil Clip Concat Constant ConstantOfShape Conv Div Equal Exp Expand Flatten Floor Gather
    GatherElements GatherND Gemm GlobalAveragePool Greater GreaterOrEqual HardSigmoid HardSwish Identity
    InstanceNormalization LayerNormalization Less LessOrEqual MatMul Max MaxPool Min Mod Mul Neg
    NonMaxSuppression Not Or Pad Pow Range ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize
    ScatterND Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub Tile TopK Transpose Unsqueeze Where
"""
"""Those marked "Y", as far as detectors may use them."""
NO_UINT8 = "UINT8 is only supported as network input or output"
MOST = 3840
"""K of TopK must be below it."""


@pytest.fixture(params=["fixed", "dynamic", "free", "fp16", "raw"])
def graph(request: pytest.FixtureRequest, model: FSAF, tmp_path: Path) -> Any:
    path = tmp_path / "model.onnx"
    if request.param == "fp16":
        to_float16(request.getfixturevalue("free").path, path)
    elif request.param == "raw":
        export_onnx(model, CLASSES, CONFIG, path, size=SIZE, outputs="raw", opset=20)
    else:
        report: ExportReport = request.getfixturevalue(request.param)
        path = report.path
    loaded = onnx.load(path)
    assert 9 <= loaded.opset_import[0].version <= 20
    return loaded.graph


def test_operators_and_their_restrictions(graph: Any) -> None:
    assert {node.op_type for node in graph.node} <= set(OPERATORS.split()), SOURCE
    constants = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
    for node in graph.node:
        given = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
        if "images" in node.input:
            in_float = graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
            assert in_float or node.op_type in ("Cast", "Shape"), NO_UINT8
        if node.op_type in ("Squeeze", "Unsqueeze", "ReduceMean") and len(node.input) > 1:
            assert node.input[1] in constants, "axes must be an initializer"
        if node.op_type == "Slice":
            assert node.input[3] in constants, "axes must be an initializer"
        if node.op_type == "TopK" and node.input[1] in constants:
            assert given.get("sorted", 1) == 1 and constants[node.input[1]] < MOST
        if node.op_type == "ScatterND":
            assert given.get("reduction", b"none") == b"none"
        if node.op_type == "Resize":
            assert given["mode"] in (b"nearest", b"linear") and not given.get("antialias")
            assert given["coordinate_transformation_mode"] in (b"asymmetric", b"half_pixel")
            assert given.get("nearest_mode", b"round_prefer_floor") in (b"floor", b"round_prefer_floor")
        if node.op_type == "NonMaxSuppression":
            assert all(name in constants for name in node.input[2:])
