"""Files of opsets that PyTorch's exporter does not write: valid, and equal."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from fsaf.detection.detector import load
from fsaf.errors import UserError
from fsaf.exporting.onnx import ExportReport, export_onnx
from fsaf.exporting.opset import LOWEST, lower_opset
from fsaf.model.detector import FSAF
from random_networks import CLASSES, CONFIG, SIZE, pictures


def interface(path: Path) -> list[Any]:
    model = onnx.load(path)
    values = [(x.name, x.type.SerializeToString()) for x in (*model.graph.input, *model.graph.output)]
    return [values, [(x.key, x.value) for x in model.metadata_props], model.producer_name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fixed", "dynamic", "free"])
@pytest.mark.parametrize("opset", [17, LOWEST])
def test_a_lower_opset_detects_the_same(
    opset: int, name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    report: ExportReport = request.getfixturevalue(name)
    path = tmp_path / "model.onnx"
    shutil.copy(report.path, path)
    lower_opset(path, opset)
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(path)
    assert [(x.domain, x.version) for x in model.opset_import] == [("", opset)]
    assert model.ir_version == {17: 8, 13: 7}[opset]
    assert interface(path) == interface(report.path)
    found, expected = (load(each).detect(*pictures(3)) for each in (path, report.path))
    assert (expected.labels_bm >= 0).sum() > 30
    assert torch.equal(found.labels_bm, expected.labels_bm)
    torch.testing.assert_close(found.boxes_bm4, expected.boxes_bm4, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_it_is_checked_as_any_file(model: FSAF, tmp_path: Path) -> None:
    options: Any = {"size": SIZE, "batches": [pictures(3)], "outputs": "raw", "opset": LOWEST}
    report = export_onnx(model, CLASSES, CONFIG, tmp_path / "model.onnx", **options)
    assert report.opset == onnx.load(report.path).opset_import[0].version == LOWEST
    assert report.comparison is not None and report.comparison.max_box_difference < 0.01
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def save(path: Path, graph: Any) -> None:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def test_shapes_of_some_dimensions(tmp_path: Path) -> None:
    """Opset 13 has no ``Shape`` with start and end."""
    outputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [None]) for name in "abc"]
    nodes = [
        helper.make_node("Shape", ["x"], ["a"], start=1, end=3),
        helper.make_node("Shape", ["x"], ["b"], start=-1),
        helper.make_node("Shape", ["x"], ["c"]),
    ]
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 5, 7])
    path = tmp_path / "a.onnx"
    save(path, helper.make_graph(nodes, "shapes", [images], outputs))
    lower_opset(path, LOWEST)
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path))
    found = session.run(None, {"x": np.zeros((2, 3, 5, 7), np.float32)})
    assert [x.tolist() for x in found] == [[3, 5], [7], [2, 3, 5, 7]]


@pytest.mark.parametrize(
    ("node", "name"),
    [
        (helper.make_node("LayerNormalization", ["x", "s"], ["y"]), "LayerNormalization"),  # of opset 17
        (helper.make_node("HardSwish", ["x"], ["y"]), "HardSwish"),  # of opset 14
    ],
)
def test_an_operator_without_counterpart(node: Any, name: str, tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, 4]) for x in "xy"]
    scale = helper.make_tensor("s", TensorProto.FLOAT, [4], [1.0] * 4)
    path = tmp_path / "a.onnx"
    save(path, helper.make_graph([node], "one", values[:1], values[1:], [scale]))
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"opset 13: has no counterpart of {name}; give a higher --opset"):
        lower_opset(path, LOWEST)
    assert path.read_bytes() == before
