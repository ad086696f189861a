"""Files of OpenVINO: the detections of the checkpoint, several threads, one message for what is wrong."""

import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fsaf.config import DataConfig
from fsaf.detection.detector import Detector, load
from fsaf.detection.postprocess import postprocess
from fsaf.errors import UserError
from fsaf.exporting.export import export_detector
from random_networks import CLASSES, CONFIG, SIZE, pictures, random_network

openvino = pytest.importorskip("openvino")

pytestmark = pytest.mark.slow

PICTURE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``free.xml`` takes any size and number of images; ``raw.xml`` one, and has no suppression."""
    folder = tmp_path_factory.mktemp("openvino")
    config = replace(CONFIG, data=DataConfig(short_side=64, long_side=96))
    detector = Detector(random_network(), CLASSES, config)
    export_detector(detector, folder / "free.xml", [PICTURE], dynamic_batch=True)
    export_detector(detector, folder / "raw.xml", [PICTURE], size=SIZE, outputs="raw", float_images=True)
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    for suffix in (".xml", ".bin"):
        shutil.copy(folder / f"raw{suffix}", tmp_path / f"model{suffix}")
    return tmp_path / "model.xml"


@pytest.mark.parametrize("name", ["free", "raw"])
@pytest.mark.parametrize("count", [1, 3])
def test_detections_equal_pytorch(name: str, count: int, folder: Path) -> None:
    images, sizes = pictures(count)
    opened = load(folder / f"{name}.xml")
    assert opened.classes == CLASSES and opened.network.device == "cpu"
    assert opened.network.fixed_size == (None if name == "free" else SIZE)
    found = opened.detect(images, sizes)
    with torch.inference_mode():
        expected = postprocess(random_network()(images, sizes), sizes, CONFIG.predict)
    assert (expected.labels_bm >= 0).sum() > 10 * count
    torch.testing.assert_close(found.boxes_bm4, expected.boxes_bm4, rtol=0, atol=0.01)
    torch.testing.assert_close(found.scores_bm, expected.scores_bm, rtol=0, atol=1e-4)
    assert torch.equal(found.labels_bm, expected.labels_bm)


def test_another_size(folder: Path) -> None:
    images = torch.randint(0, 256, (2, 3, 96, 160), dtype=torch.uint8)
    sizes = torch.tensor([[96, 160], [90, 150]])
    found = load(folder / "free.xml").detect(images, sizes)
    with torch.inference_mode():
        expected = postprocess(random_network()(images, sizes), sizes, CONFIG.predict)
    torch.testing.assert_close(found.scores_bm, expected.scores_bm, rtol=0, atol=1e-4)


def test_several_threads(folder: Path) -> None:
    detector = load(folder / "free.xml")
    shown = [np.roll(PICTURE, 7 * i, 1) for i in range(24)]
    expected = [detector.predict(one, score_threshold=0.05).scores for one in shown]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda one: detector.predict(one, score_threshold=0.05).scores, shown)
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def refusal(path: Path, device: str = "auto") -> str:
    with pytest.raises(UserError) as error:
        load(path, device)
    assert "\n" not in str(error.value)
    return str(error.value)


def bin_of(xml: Path) -> Path:
    return xml.with_suffix(".bin")


def rewrite(xml: Path, old: str, new: str) -> None:
    text = xml.read_text(encoding="utf-8")
    assert old in text
    xml.write_text(text.replace(old, new), encoding="utf-8")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no xml": (lambda xml: xml.unlink(), "model.xml: no such file"),
    "no bin": (lambda xml: bin_of(xml).unlink(), "model.bin: no such file; model.xml needs it"),
    "Pascal VOC": (lambda xml: xml.write_text("<annotation></annotation>"), "it has no <net>"),
    "empty": (lambda xml: xml.write_bytes(b""), "it has no <net>"),
    "cut": (lambda xml: xml.write_bytes(xml.read_bytes()[:100_000]), "cannot open it on cpu (Start-end tags"),
    "cut bin": (lambda xml: bin_of(xml).write_bytes(b"short"), "cannot open it on cpu (Incorrect weights"),
    "foreign": (lambda xml: rewrite(xml, "fsaf>", "own>"), "not written by `fsaf export`"),
    "newer": (
        lambda xml: rewrite(xml, '<version value="1"', '<version value="2"'),
        "written by a newer fsaf",
    ),
    "damaged": (lambda xml: rewrite(xml, 'outputs value="raw"', 'outputs value="x"'), "metadata is damaged"),
    "head": (
        lambda xml: rewrite(xml, 'outputs value="raw"', 'outputs value="head"'),
        "not fit its metadata",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_damaged_or_another(damage: str, copy: Path) -> None:
    change, message = DAMAGES[damage]
    change(copy)
    with pytest.raises(UserError) as error:
        load(copy).predict(PICTURE)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_model_of_another_program(tmp_path: Path) -> None:
    from openvino import opset13 as ops

    images = ops.parameter([1, 3, 64, 96], np.float32, "images")
    openvino.save_model(openvino.Model([ops.relu(images)], [images]), tmp_path / "a.xml")
    assert "a.xml: not written by `fsaf export`" in refusal(tmp_path / "a.xml")
    words = ops.parameter([1, 7], np.float32, "words")
    openvino.save_model(openvino.Model([ops.relu(words)], [words]), tmp_path / "b.xml")
    assert "b.xml: takes f32 [1, 7]; files of `fsaf export` take" in refusal(tmp_path / "b.xml")


def test_devices(folder: Path) -> None:
    assert "OpenVINO files run on auto, cpu, xpu" in refusal(folder / "raw.xml", "cuda")
    if "GPU" not in openvino.Core().available_devices:
        assert "raw.xml: OpenVINO cannot open it on xpu:1" in refusal(folder / "raw.xml", "xpu:1")


def test_without_the_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert refusal(folder / "raw.xml").endswith("pip install 'fsaf[openvino]'")
