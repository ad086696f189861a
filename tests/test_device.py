"""Choosing a device by name."""

from types import SimpleNamespace

import pytest
import torch

from fsaf.device import resolve_device
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
