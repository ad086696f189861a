"""Choosing a device by name."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fsaf.device.programs
from fsaf.device import (
    bf16_unit,
    can_compile,
    check_compile,
    memory_gb,
    peak_memory,
    process_group_backend,
    resolve_device,
    runs_in,
    total_memory,
)
from fsaf.errors import UserError


@pytest.mark.parametrize("name", ["abacus", "", "cpu:x", "meta", "vulkan", "-1", "hpu"])
def test_unknown_devices_are_named(name: str) -> None:
    with pytest.raises(UserError, match=rf"device '{name}': not .*; give auto or cpu"):
        resolve_device(name)


def test_cpu() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


def test_auto_takes_the_accelerator_or_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in (None, torch.device("npu") if hasattr(torch, "npu") else torch.device("xpu")):
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available, d=found: d)
        assert resolve_device("auto") == (found or torch.device("cpu"))
        assert resolve_device() == resolve_device("auto")


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(is_available=lambda: False, device_count=lambda: 0)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    with pytest.raises(UserError, match=r"device 'cuda': not available here"):
        resolve_device("cuda")


def test_a_number_beyond_the_devices_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match=r"device 'cuda:2': not available here"):
        resolve_device("cuda:2")


@pytest.mark.skipif(hasattr(torch, "npu"), reason="torch_npu is installed")
def test_the_package_that_brings_a_device_is_named() -> None:
    with pytest.raises(UserError, match=r"device 'npu:0': not known .*pip install torch-npu"):
        resolve_device("npu:0")


@pytest.mark.parametrize(
    ("name", "backend"), [("cuda:1", "nccl"), ("xpu", "xccl"), ("cpu", "gloo"), ("mps", "gloo")]
)
def test_process_groups_go_by_what_pytorch_prefers(name: str, backend: str) -> None:
    assert process_group_backend(torch.device(name)) == backend
    assert backend == torch.distributed.get_default_backend_for_device(name)


def test_process_groups_of_an_npu() -> None:
    """PyTorch without torch_npu knows no device of that name."""
    assert process_group_backend(SimpleNamespace(type="npu")) == "hccl"  # type: ignore[arg-type]


def test_memory_where_torch_accelerator_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(device: torch.device) -> int:
        raise RuntimeError("Allocator for npu is not a DeviceAllocator")

    device = torch.device("xpu:0")
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", refuse)
    monkeypatch.setattr(torch.accelerator, "get_memory_info", refuse, raising=False)
    module = SimpleNamespace(max_memory_allocated=lambda device: 7, mem_get_info=lambda device: (3, 9))
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    assert (peak_memory(device), total_memory(device)) == (7, 9)
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace())
    assert (peak_memory(device), total_memory(device)) == (0, None)


def test_a_type_that_a_device_cannot_compute_in() -> None:
    assert runs_in(torch.device("cpu"), torch.bfloat16)
    assert not runs_in(torch.device("cpu"), torch.int8)


@pytest.mark.skipif(
    not Path("/proc/cpuinfo").is_file(), reason="the system does not list the CPU's instructions"
)
def test_bf16_of_a_cpu_is_that_of_its_instructions() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    expected = next((name for name in ("amx_bf16", "avx512_bf16") if name in flags), None)
    assert bf16_unit(torch.device("cpu")) == expected


@pytest.mark.parametrize("computes", [True, False])
def test_bf16_of_an_accelerator_is_asked_of_its_module(
    computes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_cuda(including_emulation: bool = True) -> bool:
        return including_emulation or computes

    modules = {"cuda": of_cuda, "npu": lambda: computes}
    found = {name: SimpleNamespace(is_bf16_supported=function) for name, function in modules.items()}
    found["mps"] = SimpleNamespace()
    monkeypatch.setattr(torch, "get_device_module", lambda device: found[device.type])
    for name in found:
        device = SimpleNamespace(type=name)
        assert bf16_unit(device) == (name if computes and name in modules else None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "tools", "works", "because"),
    [
        ("cpu", {"g++"}, True, "C++ compiler g++"),
        ("cpu", {"clang++"}, True, "C++ compiler clang++"),
        ("cpu", set(), False, "no C++ compiler"),
        ("mps", {"clang++"}, True, "C++ compiler clang++"),
        ("cuda", {"g++"}, False, "the package triton is not installed"),
        ("cuda", {"g++", "triton"}, True, "triton 9, C++ compiler g++"),
        ("cuda", {"triton"}, False, "no C++ compiler"),
        ("xpu", {"g++", "pytorch-triton-xpu"}, True, "pytorch-triton-xpu 9, C++ compiler g++"),
    ],
)
def test_can_compile(
    monkeypatch: pytest.MonkeyPatch, device: str, tools: set[str], works: bool, because: str
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(fsaf.device.programs.shutil, "which", lambda name: name if name in tools else None)
    monkeypatch.setattr(fsaf.device.programs, "version", lambda name: "9" if name in tools else None)
    answer, why = can_compile(torch.device(device))
    assert answer is works
    assert because in why


def test_another_back_end_of_the_compiler_needs_no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsaf.device.programs.shutil, "which", lambda name: None)
    check_compile(torch.device("cpu"), "eager")
    with pytest.raises(UserError, match=r"train.compile = true: cannot compile for cpu, no C\+\+ compiler"):
        check_compile(torch.device("cpu"), "inductor")
    with pytest.raises(UserError, match=r"train.compile_backend = 'inductr': not installed; .*inductor"):
        check_compile(torch.device("cpu"), "inductr")


def test_memory_is_zero_if_the_system_reports_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no module ``resource``, and must train all the same."""
    assert memory_gb(torch.device("cpu")) > 0.05
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory_gb(torch.device("cpu")) == 0
