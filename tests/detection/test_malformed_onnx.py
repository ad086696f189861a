"""ONNX files that are not what their metadata says: one message, when they are opened or run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fsaf.detection.detector import load
from fsaf.errors import UserError
from fsaf.exporting.onnx import export_onnx
from random_networks import CLASSES, CONFIG, SIZE, random_network

pytestmark = pytest.mark.slow

IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(random_network(), CLASSES, CONFIG, path, size=SIZE)
    assert len(load(path, "cpu").predict(IMAGE, score_threshold=0.05))
    return path


def refusal(path: Path) -> str:
    """The one message with which a file is refused, when it is opened or run."""
    with pytest.raises(UserError) as error:
        load(path, "cpu").predict(IMAGE, score_threshold=0.05)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


def with_metadata(source: Path, target: Path, **changes: Any) -> Path:
    model = onnx.load(source)
    values = {each.key: each.value for each in model.metadata_props} | changes
    del model.metadata_props[:]
    helper.set_model_props(model, {key: value for key, value in values.items() if value is not None})
    onnx.save(model, target)
    return target


DEEP = "[" * 100_000 + "]" * 100_000


@pytest.mark.parametrize("key", ["format", "version", "outputs", "classes", "config"])
def test_metadata_of_wrong_types(exported: Path, tmp_path: Path, key: str) -> None:
    for value in (None, "", "x", "-", "nan", "[]", "7", "null", "{", DEEP, "1" * 5000, '{"a": 1}'):
        refusal(with_metadata(exported, tmp_path / "a.onnx", **{key: value}))


@pytest.mark.parametrize(
    "classes",
    [
        {"names": ["a"] * 3, "ids": [1, 2]},
        {"names": ["a"] * 3, "ids": [1, 2, 2]},
        {"names": [1, 2, 3], "ids": [1, 2, 3]},
        {"names": "abc", "ids": [1, 2, 3]},
        {"names": ["a"] * 3, "ids": ["1", "2", "3"]},
        {"names": ["a"] * 3, "ids": [1, 2, 10**30]},
        {"names": [], "ids": []},
        {"names": ["a"], "ids": [1]},
    ],
)
def test_classes_that_are_damaged_or_not_those_of_the_network(
    exported: Path, tmp_path: Path, classes: Any
) -> None:
    message = refusal(with_metadata(exported, tmp_path / "a.onnx", classes=json.dumps(classes)))
    assert "class" in message or "category ids" in message


@pytest.mark.parametrize("size", [[64, 64], [32_768, 32_768], [64, 96, 3], None])
def test_another_size_than_the_files(exported: Path, tmp_path: Path, size: Any) -> None:
    model = onnx.load(exported)
    config = json.loads(next(each.value for each in model.metadata_props if each.key == "config"))
    config["data"]["shapes"] = size and [size]
    refusal(with_metadata(exported, tmp_path / "a.onnx", config=json.dumps(config)))


Shapes = list[tuple[int, list[Any]]]


def tiny(source: Path, target: Path, inputs: Shapes, outputs: list[np.ndarray]) -> Path:
    """A file with the metadata of ``source`` that ignores its inputs and returns ``outputs``."""
    names = ["images", "sizes", "more"]
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], [f"out{i}"], value=numpy_helper.from_array(value))
            for i, value in enumerate(outputs)
        ],
        "tiny",
        [helper.make_tensor_value_info(names[i], *each) for i, each in enumerate(inputs)],
        [
            helper.make_tensor_value_info(
                f"out{i}", helper.np_dtype_to_tensor_dtype(value.dtype), list(value.shape)
            )
            for i, value in enumerate(outputs)
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model.metadata_props.extend(onnx.load(source).metadata_props)
    onnx.save(model, target)
    return target


UINT8, FLOAT, INT64 = TensorProto.UINT8, TensorProto.FLOAT, TensorProto.INT64
IMAGES = (UINT8, [1, 3, *SIZE])
SIZES = (INT64, [1, 2])
BOXES, SCORES, LABELS = (
    np.zeros((1, 5, 4), np.float32),
    np.zeros((1, 5), np.float32),
    np.zeros((1, 5), np.int64),
)
GOOD = [BOXES, SCORES, LABELS]


def test_a_file_that_finds_nothing_is_read(exported: Path, tmp_path: Path) -> None:
    path = tiny(exported, tmp_path / "a.onnx", [IMAGES, SIZES], GOOD)
    assert len(load(path, "cpu").predict(IMAGE, score_threshold=0.05)) == 0


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [SIZES],
        [(UINT8, [1, 3, 64])],
        [(UINT8, [])],
        [(UINT8, [1, 1, *SIZE]), SIZES],
        [(TensorProto.DOUBLE, [1, 3, *SIZE])],
        [(TensorProto.STRING, [1, 3, *SIZE])],
        [(UINT8, [1, 3, "h", "w"]), SIZES],
        [(UINT8, [1, 3, 32_768, 32_768]), SIZES],
        [(UINT8, [10**9, 3, *SIZE]), SIZES],
        [(UINT8, [0, 3, *SIZE]), SIZES],
        [IMAGES, (INT64, [1, 4])],
        [IMAGES, (INT64, [])],
        [IMAGES, (FLOAT, [1, 2])],
        [IMAGES, SIZES, SIZES],
    ],
)
def test_other_inputs(exported: Path, tmp_path: Path, inputs: Shapes) -> None:
    refusal(tiny(exported, tmp_path / "a.onnx", inputs, GOOD))


@pytest.mark.parametrize(
    "outputs",
    [
        [BOXES],
        [BOXES, SCORES],
        [*GOOD, LABELS],
        [SCORES, BOXES, LABELS],
        [BOXES[0], SCORES, LABELS],
        [BOXES[..., :3], SCORES, LABELS],
        [BOXES, SCORES[:, :4], LABELS],
        [BOXES, SCORES, LABELS[0]],
        [BOXES, LABELS, SCORES],
        [BOXES.astype(np.float64), SCORES, LABELS],
        [BOXES, SCORES, np.array([["a"] * 5], object)],
        [np.repeat(BOXES, 3, 0), np.repeat(SCORES, 3, 0), np.repeat(LABELS, 3, 0)],
        [np.float32(1.0), SCORES, LABELS],
        [BOXES, SCORES + 1, LABELS + 3],
        [BOXES * np.nan, SCORES + 1, LABELS],
        [BOXES + np.inf, SCORES + 1, LABELS],
        [BOXES, SCORES + np.inf, LABELS],
    ],
)
def test_other_outputs(exported: Path, tmp_path: Path, outputs: list[Any]) -> None:
    arrays = [np.asarray(each) for each in outputs]
    refusal(tiny(exported, tmp_path / "a.onnx", [IMAGES, SIZES], arrays))


@pytest.mark.parametrize(
    "outputs",
    [
        [np.zeros((1, 3, 129), np.float32)],
        [np.zeros((1, 3, 128), np.float32), np.zeros((1, 128, 4), np.float32)],
        [np.zeros((1, 2, 129), np.float32), np.zeros((1, 129, 4), np.float32)],
        [np.zeros((1, 3, 129), np.float32), np.zeros((1, 4, 129), np.float32)],
        [np.zeros((1, 3), np.float32), np.zeros((1, 129, 4), np.float32)],
    ],
)
def test_other_raw_outputs(exported: Path, tmp_path: Path, outputs: list[np.ndarray]) -> None:
    raw = with_metadata(exported, tmp_path / "raw.onnx", outputs="raw")
    assert "do not fit its metadata" in refusal(tiny(raw, tmp_path / "a.onnx", [IMAGES, SIZES], outputs))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [cut, empty, a_folder])
def test_files_that_are_none(exported: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "a.onnx"
    shutil.copy(exported, path)
    damage(path)
    refusal(path)
