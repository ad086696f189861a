"""Detectors and exported files that several tests use."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fsaf.config import DataConfig
from fsaf.detection.detector import Detector
from fsaf.detection.torch_network import TorchNetwork
from fsaf.exporting.onnx import ExportReport, export_onnx
from fsaf.model.detector import FSAF
from random_networks import CLASSES, CONFIG, SIZE, pictures, random_network
from synthetic import CLASSES as COLOURS


@pytest.fixture(scope="session")
def model() -> FSAF:
    """A detector with random weights. Tests must not change it."""
    return random_network(CONFIG)


@pytest.fixture(scope="session")
def fixed(model: FSAF, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """A file of one size, for two images a run."""
    path = tmp_path_factory.mktemp("fixed") / "model.onnx"
    return export_onnx(model, CLASSES, CONFIG, path, size=SIZE, batch=2, batches=[pictures(5)])


@pytest.fixture(scope="session")
def dynamic(model: FSAF, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """A file of one size, for any number of float images, with the lowest opset of PyTorch's exporter."""
    path, batches = tmp_path_factory.mktemp("dynamic") / "model.onnx", [pictures(5)]
    options: Any = {"dynamic_batch": True, "opset": 18, "float_images": True}
    return export_onnx(model, CLASSES, CONFIG, path, size=SIZE, batches=batches, **options)


@pytest.fixture(scope="session")
def free(model: FSAF, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    """A file that takes any size, and any number of images."""
    path = tmp_path_factory.mktemp("free") / "model.onnx"
    return export_onnx(model, CLASSES, CONFIG, path, dynamic_batch=True, batches=[pictures(3)])


@pytest.fixture(scope="session")
def detector(root: Path) -> Detector:
    """A detector with random weights and the data of ``root``, at a single batch shape."""
    data = DataConfig(root=str(root), short_side=64, long_side=96, shapes=[SIZE], workers=0)
    return Detector(TorchNetwork(random_network(CONFIG)), COLOURS, replace(CONFIG, data=data))
