"""OM files through ais_bench. A stand-in for ais_bench runs the ONNX file."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cli.commands import refused
from fsaf.cli import main
from fsaf.config import Config, DataConfig, SplitConfig
from fsaf.detection.detector import Detector, load
from fsaf.errors import UserError
from fsaf.exporting.export import export_detector
from random_networks import CONFIG, SIZE, pictures, random_network
from synthetic import CLASSES, eight_pictures, write_coco

pytestmark = pytest.mark.slow

STAND_IN = '''
"""ais_bench's session as its interface.py has it; the file is an ONNX file, and there are two NPUs."""

from types import SimpleNamespace

import numpy as np
import onnxruntime


class InferSession:
    def __init__(self, device_id, model_path, acl_json_path=None, debug=False, loop=1):
        if device_id > 1:
            raise RuntimeError(f"[1][ACL: invalid device id {device_id}]\\nmore about it")
        with open(model_path, "rb") as file:
            self.session = onnxruntime.InferenceSession(file.read(), providers=["CPUExecutionProvider"])

    def get_inputs(self):
        return [SimpleNamespace(name=x.name, shape=list(x.shape)) for x in self.session.get_inputs()]

    def infer(self, feeds, mode="static", custom_sizes=100000, out_array=True):
        inputs = self.session.get_inputs()
        assert len(feeds) == len(inputs) and all(type(feed) is np.ndarray for feed in feeds)
        return self.session.run(None, {x.name: feed for x, feed in zip(inputs, feeds)})
'''


@pytest.fixture
def ais_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make a package ais_bench importable, as if it were installed."""
    package = tmp_path / "site" / "ais_bench" / "infer"
    package.mkdir(parents=True)
    (package / "interface.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(package.parents[1])
    yield
    for name in ("ais_bench.infer.interface", "ais_bench.infer", "ais_bench"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set, ``model.pt`` for it, and the same detector as ``model.onnx`` and ``model.om``."""
    folder = tmp_path_factory.mktemp("om")
    annotations = write_coco(folder, eight_pictures(), "val")
    split = SplitConfig(annotations=str(annotations), images=str(folder / "images" / "val"))
    data = DataConfig(short_side=50, long_side=96, shapes=[SIZE], val=split, batch_size=3)
    config = Config(model=CONFIG.model, predict=CONFIG.predict, data=data)
    detector = Detector(random_network(config), CLASSES, config)
    detector.save(folder / "model.pt")
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    export_detector(detector, folder / "model.onnx", [pixels], target="ascend", batch=2)
    shutil.copy(folder / "model.onnx", folder / "model.om")
    return folder


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A copy of the OM file and its JSON, to be damaged."""
    for name in ("model.om", "model.json"):
        shutil.copy(root / name, tmp_path)
    return tmp_path / "model.om"


def test_detections_equal_the_checkpoints(ais_bench: None, root: Path) -> None:
    images, sizes = pictures(3)
    found = load(root / "model.om")
    expected = load(root / "model.pt", "cpu")
    assert found.network.device == "npu:0" and found.classes == expected.classes
    a, b = (one.detect(images, sizes) for one in (found, expected))
    assert (b.labels_bm >= 0).sum() > 60
    torch.testing.assert_close(a.boxes_bm4, b.boxes_bm4, rtol=0, atol=1e-3)
    assert torch.equal(a.labels_bm, b.labels_bm) and torch.equal(a.levels_bm, b.levels_bm)


def test_predictions_of_pictures_of_any_size(ais_bench: None, root: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (70, 150, 3), dtype=np.uint8)
    options: dict[str, Any] = {"score_threshold": 0.15, "flip": True, "tile": 100}
    found = load(root / "model.om", "npu:1").predict(pixels, **options)
    expected = load(root / "model.pt", "cpu").predict(pixels, **options)
    assert len(expected) > 20 and found.names == expected.names
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)
    with pytest.raises(UserError, match=r"model\.om: takes images of one size"):
        load(root / "model.om").predict(pixels, scales=[0.5, 1.0])


def test_fsaf_evaluate_gives_the_figures_of_the_checkpoint(
    ais_bench: None, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyTorch need not know NPUs: --device goes to ais_bench alone."""
    data = ["--data.val.annotations", str(root / "annotations" / "val.json")]
    data += ["--data.val.images", str(root / "images" / "val")]
    figures = []
    for name, device in (("model.om", "npu:1"), ("model.pt", "cpu")):
        out = tmp_path / name
        assert main(["evaluate", str(root / name), "--device", device, "--out", str(out), *data]) == 0
        figures.append(json.loads((out / "evaluation.json").read_text()))
        command = json.loads((out / "commands.jsonl").read_text())
        assert command["device"].startswith(device)
    assert figures[0]["AP50"] == pytest.approx(figures[1]["AP50"], abs=1e-6)
    assert figures[0]["AR100"] == pytest.approx(figures[1]["AR100"], abs=1e-6) and figures[1]["AR100"] > 0
    capsys.readouterr()
    picture = str(root / "images" / "val" / "0011.png")
    assert main(["predict", str(root / "model.om"), picture, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["detections"]


def test_without_ais_bench(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["model.om: OM files need", "ais_bench", "https://github.com/Ascend/tools"]
    refused(capsys, ["evaluate", str(root / "model.om")], *told)


def test_without_its_json_file(ais_bench: None, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy.with_suffix(".json").unlink()
    refused(capsys, ["evaluate", str(copy)], "model.json: no such file", "`fsaf export --for ascend`")


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("npu:2", "model.om: ais_bench cannot open it on npu:2 ([1][ACL: invalid device id 2])"),
        ("cpu", "device 'cpu': OM files run on an NPU only"),
        ("cuda:0", "device 'cuda:0': OM files run on an NPU only"),
        ("npu:one", "'one' is not a number"),
    ],
)
def test_devices_that_are_not_there(
    device: str, told: str, ais_bench: None, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(root / "images" / "val" / "0011.png")
    refused(capsys, ["predict", str(root / "model.om"), picture, "--device", device], told)


def test_a_file_that_is_no_model(ais_bench: None, copy: Path) -> None:
    copy.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"model\.om: ais_bench cannot open it on npu:0"):
        load(copy)
    copy.unlink()
    with pytest.raises(UserError, match=r"model\.om: no such file"):
        load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", r"model\.json: cannot be read as JSON"),
        ("[]", r"model\.json: not written by `fsaf export`"),
        ({"inputs": None}, r"model\.json: shape and type of the images are missing"),
        ({"inputs": {"images": {"shape": [1, 3, 64], "type": "float32"}}}, r"model\.json: shape and type"),
        (
            {"inputs": {"images": {"shape": [1, 3, 96, 96], "type": "float32"}}},
            r"model\.om: takes inputs of shapes \[\[2, 3, 64, 96\]\].* another file's",
        ),
        ({"classes": {"names": ["a"], "ids": []}}, r"model\.json: its classes are damaged"),
        ({"outputs": "everything"}, r"model\.json: its metadata is damaged"),
        ({"version": "2"}, r"model\.json: written by a newer fsaf"),
    ],
)
def test_a_json_file_that_does_not_fit(change: Any, message: str, ais_bench: None, copy: Path) -> None:
    path = copy.with_suffix(".json")
    content = json.loads(path.read_text())
    path.write_text(change if isinstance(change, str) else json.dumps(content | change))
    with pytest.raises(UserError, match=message):
        load(copy)


def test_outputs_of_another_network(ais_bench: None, copy: Path) -> None:
    """The images have the same shape, but the JSON file is that of a detector with anchors."""
    path = copy.with_suffix(".json")
    content = json.loads(path.read_text())
    content["config"]["model"]["branches"] = ["anchor_free", "anchor_based"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"model\.om: has outputs of shapes \[1, 3, 129\].* another file's"):
        load(copy).detect(*pictures(1))
