"""Files of OpenVINO: whole, equal to PyTorch, in float16 and 8 bits, or one message."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import fsaf
from fsaf.cli import main
from fsaf.detection.detector import Detector
from fsaf.errors import UserError
from fsaf.exporting import reduced
from fsaf.exporting.export import export_detector
from random_networks import SIZE

SHOWN = [np.zeros((*SIZE, 3), np.uint8)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_export_predict_and_evaluate(
    detector: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    root = str(detector.config.data.root)
    detector.save(tmp_path / "best.pt")
    command = ["export", str(tmp_path / "best.pt"), "--format", "openvino", f"--data.root={root}"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "best.xml: " in out and " MB, OpenVINO, written in " in out and "the first takes OpenVINO" in out
    assert names(tmp_path) == ["best.bin", "best.pt", "best.xml", "export.json"]
    note = json.loads((tmp_path / "export.json").read_text())
    assert note["comparison"]["runtime"] == "OpenVINO" and note["comparison"]["detections"] > 50
    assert note["comparison"]["max_box_difference"] < 0.1
    size = sum((tmp_path / name).stat().st_size for name in ("best.xml", "best.bin"))
    assert note["megabytes"] == pytest.approx(size / 1e6)

    metrics = fsaf.evaluate(tmp_path / "best.pt", data=root)
    scores = tmp_path / "scores"
    assert main(["evaluate", str(tmp_path / "best.xml"), "--data.root", root, "--out", str(scores)]) == 0
    evaluation = json.loads((scores / "evaluation.json").read_text())
    assert evaluation["AP"] == pytest.approx(metrics["AP"], abs=1e-4)
    picture = str(next(Path(root).rglob("*.png")))
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "best.xml"), picture, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["detections"]
    expected = fsaf.load(tmp_path / "best.pt").predict(picture)
    np.testing.assert_allclose([one["score"] for one in found], expected.scores, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_fewer_bits(precision: str, detector: Detector, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    root = str(detector.config.data.root)
    shown = sorted(Path(root).rglob("*.png"))
    options = {"fp16": {"fp16": True}, "int8": {"calibrate": shown}}[precision]
    report = export_detector(detector, tmp_path / "model.xml", shown[:2], **options)  # type: ignore[arg-type]
    made = report.reduced
    assert made is not None and made.precision == precision
    assert 0.9 * made.detections <= made.found and made.detections > 5
    assert made.float_megabytes > report.megabytes
    metrics = fsaf.evaluate(report.path, data=root)
    assert made.ap_reduced == {name: pytest.approx(metrics[name]) for name in ("AP", "AP50")}
    model = openvino.Core().read_model(report.path)
    assert json.loads(model.get_rt_info(["fsaf", "reduced"]).astype(str)) == asdict(made)
    kinds = {x.get_element_type().get_type_name() for node in model.get_ops() for x in node.outputs()}
    assert {"fp16": "f16", "int8": "i8"}[precision] in kinds


@pytest.mark.slow
def test_nothing_is_left_if_the_file_disagrees(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "model.bin").write_bytes(b"older")
    monkeypatch.setattr(reduced, "FOUND_SHARE", 1.01)
    shown = sorted(Path(str(detector.config.data.root)).rglob("*.png"))
    with pytest.raises(UserError, match=r"model\.xml: not written, because in fp16 only"):
        export_detector(detector, tmp_path / "model.xml", shown[:2], fp16=True)
    assert names(tmp_path) == ["model.bin"] and (tmp_path / "model.bin").read_bytes() == b"older"


def test_options_that_do_not_fit(detector: Detector, tmp_path: Path) -> None:
    for options, message in (
        ({"standalone": True}, "standalone: the script runs ONNX files"),
        ({"target": "ascend"}, "ATC reads ONNX files"),
    ):
        with pytest.raises(UserError, match=message):
            export_detector(detector, tmp_path / "a.xml", SHOWN, **options)  # type: ignore[arg-type]
    assert not names(tmp_path)


def test_the_name_fits_the_format(
    detector: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector.save(tmp_path / "best.pt")
    out = str(tmp_path / "model.onnx")
    assert main(["export", str(tmp_path / "best.pt"), "--format", "openvino", "--out", out]) == 2
    assert "model.onnx: the name of a file of the format openvino must end in .xml" in capsys.readouterr().err


def test_without_the_package(detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"need the package openvino: pip install 'fsaf\[openvino\]'"):
        export_detector(detector, tmp_path / "a.xml", SHOWN)
    assert not names(tmp_path)
