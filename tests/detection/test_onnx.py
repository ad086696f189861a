"""ONNX files in onnxruntime: the execution provider of each device, and devices that are not there."""

import sys
import types
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

from fsaf.config import Config
from fsaf.data.records import Classes
from fsaf.detection.detector import load
from fsaf.errors import UserError
from fsaf.exporting.onnx import export_onnx
from fsaf.model.detector import FSAF
from synthetic import tiny_model

pytestmark = pytest.mark.slow

CLASSES = Classes(names=("cat", "dog"), ids=(1, 2))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported file of an untrained detector."""
    settings = tiny_model()
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(FSAF(settings, 2).eval(), CLASSES, Config(model=settings), path, size=(32, 32))
    return path


@pytest.mark.parametrize("device", ["npu", "npu:7", "cuda:3"])
def test_a_device_without_its_provider_is_refused(device: str, path: Path) -> None:
    """`--device npu:7` once ran on the CPU without a message."""
    package = {"npu": "onnxruntime-cann", "cuda": "onnxruntime-gpu"}[device.split(":")[0]]
    with pytest.raises(UserError, match=rf"device '{device}': .* has no \w+ExecutionProvider.* {package}"):
        load(path, device)


@pytest.mark.parametrize("device", [None, "auto", "cpu", torch.device("cpu")])
def test_without_an_accelerator_files_run_on_the_cpu(device: Any, path: Path) -> None:
    assert load(path, device).network.device == "cpu"


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("tpu", "device 'tpu': ONNX files run on auto, cpu, cuda, npu"),
        ("npu:x", "device 'npu:x': 'x' is not a number"),
        ("npu:", "device 'npu:': '' is not a number"),
    ],
)
def test_names_that_are_no_device(device: str, message: str, path: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(path, device)


class Runtime:
    """onnxruntime with the CANN provider: its sessions keep what they were asked for, and run on the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, devices: int = 2) -> None:
        self.asked: list[Any] = []
        self.starts = True
        real = onnxruntime.InferenceSession

        def open_session(path: str, options: Any, providers: list[Any], enable_fallback: int = 0) -> Any:
            self.asked.append(providers)
            assert not enable_fallback
            session = real(path, options, providers=["CPUExecutionProvider"])
            if self.starts and len(providers) > 1:
                name = providers[0][0]
                monkeypatch.setattr(session, "get_providers", lambda: [name, "CPUExecutionProvider"])
            return session

        available = ["CANNExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
        monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
        npu = types.SimpleNamespace(is_available=lambda: devices > 0, device_count=lambda: devices)
        real_module = torch.get_device_module
        monkeypatch.setattr(
            torch, "get_device_module", lambda kind=None: npu if kind == "npu" else real_module(kind)
        )


@pytest.mark.parametrize(("device", "number"), [("npu", 0), ("npu:1", 1)])
def test_the_number_of_an_npu_goes_to_its_provider(
    device: str, number: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(monkeypatch)
    detector = load(path, device)
    assert runtime.asked == [[("CANNExecutionProvider", {"device_id": number}), "CPUExecutionProvider"]]
    assert detector.network.device == f"npu:{number}"
    assert detector.detect(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.tensor([[32, 32]]))


def test_auto_takes_the_accelerator_that_pytorch_sees(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Runtime(monkeypatch)
    assert load(path).network.device == "cpu"
    seen = types.SimpleNamespace(type="npu")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: seen)
    assert load(path).network.device == "npu:0"
    seen.type = "cuda"  # this onnxruntime has no provider for it
    assert load(path).network.device == "cpu"


def test_a_number_that_is_too_large_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(monkeypatch, devices=2)
    with pytest.raises(UserError, match=r"device 'npu:2': .* this machine has npu:0 to npu:1"):
        load(path, "npu:2")
    assert not runtime.asked
    Runtime(monkeypatch, devices=0)  # PyTorch sees no such device, so the provider decides
    assert load(path, "npu:2").network.device == "npu:2"


def test_a_provider_that_leaves_all_to_the_cpu_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime-gpu does this, with a warning only, if a CUDA library is missing."""
    Runtime(monkeypatch).starts = False
    with pytest.raises(UserError, match=r"model\.onnx: .* CANNExecutionProvider does not start"):
        load(path, "npu")


def test_each_of_several_processes_takes_its_own(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Runtime(monkeypatch)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert load(path, "npu").network.device == "npu:1"
    with pytest.raises(UserError, match=r"'npu:0': several processes need one device each; give npu"):
        load(path, "npu:0")


def test_a_missing_onnxruntime_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime: pip install 'fsaf\[export\]'"):
        load(path)


def test_an_onnxruntime_that_is_there_but_broken(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does a build for NumPy 1 beside NumPy 2; installing it again would not help."""
    (tmp_path / "onnxruntime.py").write_text('raise ImportError("numpy failed")')
    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        UserError, match=r"onnxruntime: is installed, but cannot be imported \(numpy failed\)"
    ):
        load(path)
