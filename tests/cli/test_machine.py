"""``fsaf info``: versions, devices, and their text."""

import importlib.metadata
import json
import platform
from types import SimpleNamespace

import pytest
import torch
import torchvision

import fsaf
from fsaf.cli import machine, main
from fsaf.errors import UserError

CPU = torch.device("cpu")


def test_versions_are_those_of_the_modules() -> None:
    versions = machine.describe_machine("cpu")["versions"]
    assert versions["fsaf"] == fsaf.__version__
    assert versions["torch"] == torch.__version__
    assert versions["torchvision"] == torchvision.__version__.split("+")[0]
    assert versions["python"] == platform.python_version()


def test_an_absent_package_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.version("a-package-that-nobody-made") is None
    assert machine.version("torch") == importlib.metadata.version("torch")


def test_choices_on_a_cpu() -> None:
    found = machine.describe_machine("cpu")
    assert found["device"] == "cpu"
    assert found["process_groups"]["backend"] == "gloo"
    assert found["fallbacks"] == {"nms": None}
    assert found["precision"] == {"bf16": True, "fp16": True}
    assert found["devices"][0]["name"] == "cpu"
    assert found["devices"][0]["memory"] > 2**30


def test_an_accelerator_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(get_device_name=lambda index: f"number {index}")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    monkeypatch.setattr(machine, "total_memory", lambda device: (device.index + 1) * 2**30)
    assert machine.devices()[1:] == [
        {"name": "xpu:0", "what": "number 0", "memory": 2**30},
        {"name": "xpu:1", "what": "number 1", "memory": 2 * 2**30},
    ]


def test_the_table_is_aligned() -> None:
    lines = machine.format_machine(machine.describe_machine("cpu")).splitlines()
    wide = max(len(line.split("  ")[0]) for line in lines) + 2
    assert all(line == "" or (line[wide - 1] == " " and line[wide] != " ") for line in lines)
    assert any(line.split() == ["fsaf", fsaf.__version__] for line in lines)
    assert any(line.startswith("process groups") and line.endswith("gloo") for line in lines)
    assert any(line.startswith("suppression") and line.endswith("torchvision's kernel") for line in lines)


def test_what_is_missing_is_said() -> None:
    found = machine.describe_machine("cpu")
    found["optional"]["onnx"] = None
    found["compile"] = {"works": False, "because": "no C++ compiler"}
    found["fallbacks"]["nms"] = "tensor operations of fixed shapes"
    found["process_groups"] = {"backend": "hccl", "available": False}
    found["precision"]["fp16"] = False
    lines = [" ".join(line.split()) for line in machine.format_machine(found).splitlines()]
    for line in (
        "onnx not installed",
        "torch.compile cannot work: no C++ compiler",
        "suppression tensor operations of fixed shapes",
        "process groups hccl (not in this PyTorch)",
        "precision fp32, bf16",
    ):
        assert line in lines


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == machine.describe_machine("cpu")


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--data.batch_size", "3"]) == 2
    assert "unrecognized option --data.batch_size" in capsys.readouterr().err
    with pytest.raises(UserError, match="abacus"):
        machine.describe_machine("abacus")
