"""Files for Ascend's compiler ATC: one input, known operators, metadata beside the file, commands."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from fsaf.data.records import Classes
from fsaf.detection.detector import Detector, load
from fsaf.errors import UserError
from fsaf.exporting.ascend import ascend_commands, ascend_options, check_operators, known_operators
from fsaf.exporting.export import export_detector
from fsaf.exporting.modules import WithHead
from fsaf.exporting.onnx import ExportReport, export_onnx
from fsaf.model.detector import FSAF
from fsaf.recipe import load_recipe
from random_networks import CLASSES, CONFIG, SIZE, pictures, random_network

pytestmark = pytest.mark.slow

PIXELS = np.random.default_rng(0).integers(0, 256, (100, 120, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(random_network(), CLASSES, CONFIG)


def export(detector: Detector, path: Path, **options: Any) -> ExportReport:
    return export_detector(detector, path, [PIXELS], size=SIZE, target="ascend", **options)


@pytest.fixture(scope="module")
def report(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    return export(detector, tmp_path_factory.mktemp("ascend") / "model.onnx", batch=2)


def test_one_float_input_and_the_outputs_of_the_head(report: ExportReport) -> None:
    file = onnx.load(report.path)
    described = {
        x.name: ([side.dim_value for side in x.type.tensor_type.shape.dim], x.type.tensor_type.elem_type)
        for x in (*file.graph.input, *file.graph.output)
    }
    locations = 96 + 24 + 6 + 2 + 1
    assert described == {
        "images": ([2, 3, 64, 96], onnx.TensorProto.FLOAT),
        "logits": ([2, 3, locations], onnx.TensorProto.FLOAT),
        "distances": ([2, 4, locations], onnx.TensorProto.FLOAT),
    }
    assert [(x.domain, x.version) for x in file.opset_import if x.domain == ""] == [("", 18)]
    assert report.comparison is not None and report.comparison.detections == locations


def test_metadata_lies_beside_the_file(report: ExportReport) -> None:
    assert sorted(path.name for path in report.path.parent.iterdir()) == ["model.json", "model.onnx"]
    content = json.loads(report.path.with_suffix(".json").read_text())
    inside = {x.key: x.value for x in onnx.load(report.path).metadata_props}
    assert content["inputs"] == {"images": {"shape": [2, 3, 64, 96], "type": "float32"}}
    assert content["outputs"] == inside["outputs"] == "head"
    assert content["preprocessing"]["pad_with"] == [123.675, 116.28, 103.53]
    assert content["export"]["comparison"]["max_box_difference"] < 0.1
    for key in ("classes", "config", "preprocessing"):
        assert content[key] == json.loads(inside[key])


def test_padded_images_give_the_detections_of_the_checkpoint(
    detector: Detector, report: ExportReport
) -> None:
    """The file has no input for their sizes. Padding with the mean colour replaces it, exactly."""
    images, sizes = pictures(3)
    found, expected = (one.detect(images, sizes) for one in (load(report.path), detector))
    assert (expected.labels_bm >= 0).sum() > 60
    torch.testing.assert_close(found.boxes_bm4, expected.boxes_bm4, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.scores_bm, expected.scores_bm, rtol=0, atol=1e-5)
    assert torch.equal(found.labels_bm, expected.labels_bm)
    assert torch.equal(found.levels_bm, expected.levels_bm)


def test_uint8_images_if_asked(detector: Detector, tmp_path: Path) -> None:
    report = export(detector, tmp_path / "model.onnx", float_images=False)
    assert json.loads((tmp_path / "model.json").read_text())["inputs"]["images"]["type"] == "uint8"
    images, sizes = pictures(1)  # an image that fills H x W
    found, expected = (one.detect(images, sizes) for one in (load(report.path), detector))
    torch.testing.assert_close(found.scores_bm, expected.scores_bm, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opset": 20}, "opset 20: ATC reads opset 18"),
        ({"outputs": "raw"}, "raw: the outputs of the head are written"),
        ({"dynamic_batch": True}, "batch 0: the number of images is fixed"),
    ],
)
def test_options_that_contradict_the_target(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ascend_options(options)


def test_an_operator_that_cann_lacks_is_named(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A norm becomes ReduceL2, which CANN registers up to opset 17 only."""
    forward = WithHead.forward

    def with_norm(self: WithHead, images: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        logits, distances = forward(self, images, sizes)
        return logits, distances + torch.linalg.vector_norm(images)

    monkeypatch.setattr(WithHead, "forward", with_norm)
    with pytest.raises(UserError, match=r"CANN's ONNX parser has no operator ReduceL2 at opset 18"):
        export(detector, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_table_of_operators() -> None:
    """The table agrees with the sources it names. Gelu, for example, is in ONNX from opset 20 on."""
    known = known_operators()
    assert {"Conv", "Clip", "Resize", "InstanceNormalization", "Constant", "TopK"} <= known
    assert not {"Gelu", "ReduceL2", "GroupNormalization", "Upsample"} & known


@pytest.mark.parametrize("name", ["lite0", "fsaf_r50_fpn_1x_coco", "ab_fsaf_r50_fpn_1x_coco"])
def test_the_networks_of_the_recipes_can_be_read(name: str, tmp_path: Path) -> None:
    config = load_recipe(name, ["--model.weights=none"])
    network = FSAF(config.model, 2).eval()
    options = ascend_options({"check_graph": check_operators})
    classes = Classes(names=("a", "b"), ids=(1, 2))
    report = export_onnx(network, classes, config, tmp_path / "model.onnx", size=(64, 64), **options)
    assert report.opset == 18


def test_a_json_file_of_someone_else_stays(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"AP": 0.4}')
    with pytest.raises(UserError, match=r"evaluation\.json: already exists and is not an exported file"):
        export(detector, tmp_path / "evaluation.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]
    assert (tmp_path / "evaluation.json").read_text() == '{"AP": 0.4}'


def test_commands_can_be_pasted_into_a_shell() -> None:
    text = ascend_commands(Path("my runs/fsaf.onnx"), (1, 3, 800, 1216))
    atc, ais_bench, evaluate = (
        shlex.split(command) for command in re.findall(r"^  ((?:.*\\\n)*.*)$", text.replace("\\\n", ""), re.M)
    )
    assert atc[0] == "atc" and set(atc[1:]) == {
        "--framework=5",
        "--model=my runs/fsaf.onnx",
        "--output=my runs/fsaf",
        "--input_format=NCHW",
        "--input_shape=images:1,3,800,1216",
        "--soc_version=Ascend310P3",
        "--log=error",
    }
    assert ais_bench == ["python3", "-m", "ais_bench", "--model", "my runs/fsaf.om", "--loop", "100"]
    assert evaluate[:3] == ["fsaf", "evaluate", "my runs/fsaf.om"]
