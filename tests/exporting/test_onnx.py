"""Exported files: the same detections as PyTorch, fixed shapes, metadata, nothing half-written."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
import torch.nn.functional as F
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor

import fsaf.exporting.check as check_module
from fsaf.config import DataConfig
from fsaf.detection.detector import Detector, load
from fsaf.detection.onnx import OnnxSession
from fsaf.detection.postprocess import Detections, postprocess
from fsaf.errors import UserError
from fsaf.exporting.export import export_detector
from fsaf.exporting.modules import ConstantPadding, use_constant_padding
from fsaf.exporting.onnx import ExportReport, export_onnx
from fsaf.model.detector import FSAF
from random_networks import CLASSES, CONFIG, SIZE, pictures, random_network

pytestmark = pytest.mark.slow


def export(model: FSAF, path: Path, **options: Any) -> ExportReport:
    images, sizes = pictures(5)
    return export_onnx(model, CLASSES, CONFIG, path, size=SIZE, batches=[(images, sizes)], **options)


def resized(count: int, size: tuple[int, int], used: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return ``pictures`` at the size ``used``, padded to ``size``."""
    images, _ = pictures(count)
    images = F.interpolate(images.float(), used, mode="bilinear").round().to(torch.uint8)
    return F.pad(images, (0, size[1] - used[1], 0, size[0] - used[0])), torch.tensor([used] * count)


@pytest.mark.parametrize(
    ("size", "used"),
    [
        ((64, 96), (64, 90)),
        ((96, 64), (96, 64)),
        ((32, 32), (30, 20)),
        ((160, 32), (150, 32)),
        ((256, 384), (256, 384)),
        ((384, 512), (380, 500)),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_a_file_of_free_size_equals_pytorch_at_every_size(
    size: tuple[int, int], used: tuple[int, int], count: int, free: ExportReport, model: FSAF
) -> None:
    images, sizes = resized(count, size, used)
    detector = load(free.path)
    assert detector.network.fixed_size is None
    found = detector.detect(images, sizes)
    with torch.inference_mode():
        expected = postprocess(model(images, sizes), sizes, CONFIG.predict)
    assert (expected.labels_bm >= 0).any()
    both = Detections(*expected[:3]), Detections(*found[:3])
    comparison = check_module.Comparison(images=count)
    check_module.compare_detections(*both, CONFIG.predict, CLASSES, comparison, "file")
    assert comparison.detections > 0 and comparison.max_box_difference < 0.01


@pytest.mark.parametrize("size", [(64, 96), (224, 32)])
def test_tensorflows_padding_is_the_same_for_every_size(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    images = torch.rand(1, 3, *size)
    with torch.inference_mode():
        expected = network(images)
        use_constant_padding(network)
        assert any(isinstance(module, ConstantPadding) for module in network.modules())
        for a, b in zip(expected, network(images), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("shapes", "options", "shape"),
    [
        ([(64, 96), (96, 64)], {}, (1, 3, None, None)),
        ([(64, 96)], {}, (1, 3, 64, 96)),
        (None, {"size": (32, 64)}, (1, 3, 32, 64)),
        ([(64, 96), (96, 64)], {"fixed_size": True}, (1, 3, 64, 96)),
    ],
)
def test_the_size_is_free_unless_the_recipe_has_one_shape(
    shapes: Any, options: dict[str, Any], shape: Any, model: FSAF, tmp_path: Path
) -> None:
    data = DataConfig(shapes=shapes, short_side=64, long_side=96)
    detector = Detector(model, CLASSES, replace(CONFIG, data=data))
    rng = np.random.default_rng(1)
    shown = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((64, 90), (90, 64))]
    report = export_detector(detector, tmp_path / "model.onnx", shown, **options)
    assert report.input_shape == shape
    assert report.comparison is not None and report.comparison.images == (4 if shape[2] is None else 2)
    note = json.loads((tmp_path / "export.json").read_text())
    assert note["size"] == (None if shape[2] is None else list(shape[2:]))


def test_a_file_of_free_size_takes_multiples_of_32(free: ExportReport) -> None:
    with pytest.raises(UserError, match=r"multiples of 32, not to 64 x 90"):
        load(free.path).detect(torch.zeros(1, 3, 64, 90, dtype=torch.uint8), torch.tensor([[64, 90]]))


def test_pictures_of_any_shape_are_not_made_smaller_than_the_checkpoint_sees_them(
    free: ExportReport, model: FSAF
) -> None:
    rng = np.random.default_rng(0)
    shown = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((64, 90), (90, 64), (40, 200))]
    ours = Detector(model, CLASSES, CONFIG).predict(shown, score_threshold=0.05)
    theirs = load(free.path).predict(shown, score_threshold=0.05)
    for a, b in zip(ours, theirs, strict=True):
        assert len(a) == len(b) > 0
        np.testing.assert_allclose(np.sort(a.scores), np.sort(b.scores), atol=1e-4)


def test_test_time_augmentation_of_a_file_of_free_size(free: ExportReport, model: FSAF) -> None:
    picture = pictures(1)[0][0]
    a, b = (
        each.predict(picture, scales=[1.0, 1.5], flip=True, score_threshold=0.05)
        for each in (Detector(model, CLASSES, CONFIG), load(free.path))
    )
    assert len(a) == len(b) > 0
    np.testing.assert_allclose(np.sort(a.scores), np.sort(b.scores), atol=1e-4)


def test_report(fixed: ExportReport) -> None:
    found = fixed.comparison
    assert found is not None and found.images == 5 and found.detections > 50
    assert found.max_box_difference < 0.1 and found.max_score_difference < 1e-3
    assert found.torch_seconds > 0 and found.file_seconds > 0
    assert fixed.megabytes == pytest.approx(fixed.path.stat().st_size / 1e6)
    assert [entry.name for entry in fixed.path.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("kind", ["fixed", "dynamic"])
@pytest.mark.parametrize("count", [1, 3])
def test_detections_equal_pytorch(kind: str, count: int, model: FSAF, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind).path
    images, sizes = pictures(count)
    found = load(path).detect(images, sizes)
    with torch.inference_mode():
        expected = postprocess(model(images, sizes), sizes, CONFIG.predict)
    assert (expected.labels_bm >= 0).sum() > 10 * count
    torch.testing.assert_close(found.boxes_bm4, expected.boxes_bm4, rtol=0, atol=0.01)
    torch.testing.assert_close(found.scores_bm, expected.scores_bm, rtol=0, atol=1e-4)
    assert torch.equal(found.labels_bm, expected.labels_bm)


def test_mirrored_views_and_tiles_of_a_file(fixed: ExportReport, model: FSAF) -> None:
    config = replace(CONFIG, data=DataConfig(short_side=64, long_side=96, shapes=[SIZE]))
    pixels = np.random.default_rng(0).integers(0, 256, (96, 144, 3), dtype=np.uint8)
    found, expected = (
        Detector(one, CLASSES, config).predict(pixels, flip=True, tile=96, score_threshold=0.2)
        for one in (load(fixed.path).network, model)
    )
    assert len(expected) > 40 and found.names == expected.names and found.levels is None
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.02)


def test_inputs_and_outputs(fixed: ExportReport, dynamic: ExportReport) -> None:
    def describe(path: Path) -> dict[str, tuple[list[Any], str]]:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return {x.name: (x.shape, x.type) for x in (*session.get_inputs(), *session.get_outputs())}

    assert describe(fixed.path) == {
        "images": ([2, 3, 64, 96], "tensor(uint8)"),
        "sizes": ([2, 2], "tensor(int64)"),
        "boxes": ([2, 40, 4], "tensor(float)"),
        "scores": ([2, 40], "tensor(float)"),
        "labels": ([2, 40], "tensor(int64)"),
    }
    assert describe(dynamic.path) == {
        "images": (["batch", 3, 64, 96], "tensor(float)"),
        "sizes": (["batch", 2], "tensor(int64)"),
        "boxes": (["batch", 40, 4], "tensor(float)"),
        "scores": (["batch", 40], "tensor(float)"),
        "labels": (["batch", 40], "tensor(int64)"),
    }
    assert OnnxSession(fixed.path).input_shape == (2, 3, 64, 96)
    assert OnnxSession(dynamic.path).input_shape == (None, 3, 64, 96)


def test_graph_is_valid_and_suppression_is_one_operator(fixed: ExportReport, dynamic: ExportReport) -> None:
    for report in (fixed, dynamic):
        onnx.checker.check_model(str(report.path), full_check=True)
        kinds = [node.op_type for node in onnx.load(report.path).graph.node]
        assert kinds.count("NonMaxSuppression") == 1
        assert "Loop" not in kinds and len(kinds) < 500
    assert dynamic.opset == 18
    assert [x.version for x in onnx.load(dynamic.path).opset_import if x.domain == ""] == [18]


def test_onnxruntime_prepares_the_file_for_quantisation(fixed: ExportReport, tmp_path: Path) -> None:
    prepared = tmp_path / "prepared.onnx"
    quant_pre_process(str(fixed.path), str(prepared))
    images, sizes = (x.numpy() for x in pictures(2))
    expected, found = (
        onnxruntime.InferenceSession(path).run(None, {"images": images, "sizes": sizes})
        for path in (fixed.path, prepared)
    )
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_metadata(fixed: ExportReport) -> None:
    metadata = {x.key: x.value for x in onnx.load(fixed.path).metadata_props}
    assert (metadata["format"], metadata["version"], metadata["outputs"]) == ("fsaf", "1", "detections")
    assert json.loads(metadata["classes"]) == {"names": list(CLASSES.names), "ids": list(CLASSES.ids)}
    assert json.loads(metadata["config"])["predict"]["max_detections"] == 40
    assert json.loads(metadata["preprocessing"])["pad_to"] == [64, 96]
    assert "secret" not in str(metadata)
    opened = load(fixed.path)
    assert opened.classes == CLASSES
    assert opened.config.predict == CONFIG.predict
    assert [tuple(shape) for shape in opened.config.data.shapes or []] == [SIZE]


def test_no_detections(fixed: ExportReport, model: FSAF) -> None:
    """Without a score above the threshold, shapes are the same, and nothing comes from padding."""
    found = load(fixed.path).detect(*pictures(1), replace(CONFIG.predict, score_threshold=0.9999))
    assert found.boxes_bm4.shape == (1, 40, 4)
    assert (found.labels_bm == -1).all() and (found.scores_bm == 0).all() and (found.boxes_bm4 == 0).all()


def test_stricter_settings(fixed: ExportReport, model: FSAF) -> None:
    images, sizes = pictures(2)
    settings = replace(CONFIG.predict, score_threshold=0.3, max_detections=12)
    found = load(fixed.path).detect(images, sizes, settings)
    with torch.inference_mode():
        expected = postprocess(model(images, sizes), sizes, settings)
    assert (expected.labels_bm >= 0).sum() > 0 and torch.equal(found.labels_bm, expected.labels_bm)
    torch.testing.assert_close(found.scores_bm, expected.scores_bm, rtol=0, atol=1e-4)


def test_some_classes_of_a_file_and_of_the_checkpoint(
    fixed: ExportReport, model: FSAF, tmp_path: Path
) -> None:
    images, sizes = pictures(2)
    some = replace(CONFIG.predict, classes=["猫", 0])
    whole, found = (load(fixed.path).detect(images, sizes, settings) for settings in (CONFIG.predict, some))
    for image in range(2):  # those of the file's 40 detections
        rows = (whole.labels_bm[image] == 0) | (whole.labels_bm[image] == 2)
        kept = found.labels_bm[image] >= 0
        assert 0 < rows.sum() < 40
        assert torch.equal(found.boxes_bm4[image][kept], whole.boxes_bm4[image][rows])
    settings = replace(some, class_agnostic=True)
    report = export(model, tmp_path / "raw.onnx", outputs="raw")
    a, b = (
        one.detect(images, sizes, settings) for one in (load(report.path), Detector(model, CLASSES, CONFIG))
    )
    assert (b.labels_bm >= 0).sum() > 10 and torch.equal(a.labels_bm, b.labels_bm)
    torch.testing.assert_close(a.boxes_bm4, b.boxes_bm4, rtol=0, atol=0.01)
    built_in = replace(CONFIG, predict=settings)
    path = tmp_path / "built_in.onnx"
    export_onnx(model, CLASSES, built_in, path, size=SIZE, batches=[(images, sizes)])
    opened = load(path)
    assert opened.config.predict.classes == [0, 2] and opened.config.predict.class_agnostic
    assert torch.equal(opened.detect(images, sizes).labels_bm, b.labels_bm)
    for classes in (None, ["dög"]):
        with pytest.raises(UserError, match="export the checkpoint again"):
            opened.detect(images, sizes, replace(settings, classes=classes))


@pytest.mark.parametrize(
    "change",
    [
        {"class_agnostic": True},
        {"score_threshold": 0.01},
        {"max_detections": 41},
        {"nms_iou": 0.6},
        {"candidates": 10},
        {"anchor_weight": 0.5},
    ],
)
def test_settings_that_are_built_in(change: dict[str, Any], fixed: ExportReport) -> None:
    with pytest.raises(UserError, match="export the checkpoint again"):
        load(fixed.path).detect(*pictures(1), replace(CONFIG.predict, **change))


def test_image_of_another_size(fixed: ExportReport) -> None:
    with pytest.raises(UserError, match=r"takes images padded to 64 x 96 .* not 96 x 64"):
        load(fixed.path).detect(pictures(1)[0].transpose(2, 3), torch.tensor([[96, 64]]))


def test_raw(model: FSAF, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = export(model, tmp_path / "raw.onnx", outputs="raw")
    assert capfd.readouterr() == ("", ""), "the exporter's chatter"
    assert report.comparison is not None and report.comparison.detections == 5 * (96 + 24 + 6 + 2 + 1)
    images, sizes = pictures(1)
    session = onnxruntime.InferenceSession(str(report.path), providers=["CPUExecutionProvider"])
    logits, boxes = session.run(["logits", "boxes"], {"images": images.numpy(), "sizes": sizes.numpy()})
    with torch.inference_mode():
        outputs = model(images, sizes)
    np.testing.assert_allclose(logits, outputs.free.flat()[0], atol=1e-3)
    # The location of row 1, column 2 on the second level (stride 16), which comes after 8 x 12 of the first.
    top, bottom, left, right = (outputs.free.distances[1][0, :, 1, 2] * 64).tolist()
    expected = [32 - left, 16 - top, 32 + right, 16 + bottom]
    np.testing.assert_allclose(boxes[0, 96 + 6 + 2], expected, atol=1e-2)


@pytest.mark.parametrize("outputs", ["raw", "head"])
@pytest.mark.parametrize("branches", [["anchor_free"], ["anchor_based"], ["anchor_free", "anchor_based"]])
def test_a_file_without_suppression_detects_as_the_checkpoint(
    outputs: Any, branches: Any, tmp_path: Path
) -> None:
    config = replace(CONFIG, model=replace(CONFIG.model, branches=branches))
    network = random_network(config)
    images, sizes = pictures(3)
    options: Any = {"size": SIZE, "outputs": outputs, "batches": [(images, sizes)]}
    if outputs == "raw" and branches != ["anchor_free"]:
        with pytest.raises(UserError, match="raw: not supported for detectors with anchors"):
            export_onnx(network, CLASSES, config, tmp_path / "model.onnx", **options)
        return
    report = export_onnx(network, CLASSES, config, tmp_path / "model.onnx", **options)
    assert report.comparison is not None and report.comparison.max_box_difference < 0.01
    settings = replace(CONFIG.predict, score_threshold=0.02, nms_iou=0.4)  # no setting is built in
    found = load(report.path).detect(images, sizes, settings)
    expected = Detector(network, CLASSES, config).detect(images, sizes, settings)
    assert (expected.labels_bm >= 0).sum() > 30
    torch.testing.assert_close(found.boxes_bm4, expected.boxes_bm4, rtol=0, atol=0.01)
    torch.testing.assert_close(found.scores_bm, expected.scores_bm, rtol=0, atol=1e-4)
    assert torch.equal(found.labels_bm, expected.labels_bm)
    assert torch.equal(found.levels_bm, expected.levels_bm)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (64, 90)}, "64 x 90: both must be multiples of 32"),
        ({"batch": 0}, "batch 0"),
        ({"opset": 12}, "opset 12: must be 13 to"),
        ({"path": "model.pt"}, "must end in .onnx"),
    ],
)
def test_wrong_settings(options: dict[str, Any], message: str, model: FSAF, tmp_path: Path) -> None:
    options = {"size": SIZE, **options}
    path = tmp_path / options.pop("path", "model.onnx")
    with pytest.raises(UserError, match=message):
        export_onnx(model, CLASSES, CONFIG, path, **options)
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(
    model: FSAF, fixed: ExportReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"file: is a file, so .* cannot be a folder"):
        export(model, tmp_path / "file" / "model.onnx")
    (tmp_path / "export.json").mkdir()
    monkeypatch.setattr("fsaf.exporting.export.export_onnx", lambda *_, **__: fixed)
    with pytest.raises(UserError, match=r"export\.json: cannot be written"):
        export_detector(
            Detector(model, CLASSES, CONFIG), tmp_path / "model.onnx", [np.zeros((*SIZE, 3), np.uint8)]
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.json", "file"]


def test_missing_package(model: FSAF, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"pip install 'fsaf\[export\]'"):
        export_onnx(model, CLASSES, CONFIG, tmp_path / "model.onnx", size=SIZE)


def test_a_file_that_disagrees_is_not_written(
    model: FSAF, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"an earlier file")
    run: Callable[..., tuple[Tensor, ...]] = check_module.run_session

    def shifted(*arguments: Any) -> tuple[Tensor, ...]:
        boxes, *others = run(*arguments)
        return (boxes + 0.2, *others)

    monkeypatch.setattr(check_module, "run_session", shifted)
    with pytest.raises(UserError, match="not written, because onnxruntime and PyTorch disagree"):
        export(model, tmp_path / "model.onnx")
    assert [x.name for x in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"an earlier file"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.onnx: no such file"):
        load(tmp_path / "nothing.onnx")


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_damaged_file(keep: float, fixed: ExportReport, tmp_path: Path) -> None:
    content = fixed.path.read_bytes()
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(UserError, match=r"damaged\.onnx: (onnxruntime cannot open|not written by)"):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": None}, "not written by `fsaf export`"),
        ({"classes": None}, "metadata is damaged"),
        ({"classes": "{"}, "metadata is damaged"),
        ({"classes": '{"names": ["a"], "ids": []}'}, "classes are damaged"),
        ({"version": "2"}, "newer fsaf"),
        ({"config": '{"predict": {"nms_iou": 7}}'}, "nms_iou"),
    ],
)
def test_changed_metadata(
    change: dict[str, str | None], message: str, fixed: ExportReport, tmp_path: Path
) -> None:
    file = onnx.load(fixed.path)
    metadata = {x.key: x.value for x in file.metadata_props} | change
    onnx.helper.set_model_props(file, {key: value for key, value in metadata.items() if value is not None})
    onnx.save(file, tmp_path / "changed.onnx")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "changed.onnx")
