"""Choose a device by its name, and the library that connects processes on it."""

from typing import Any

import torch

from fsaf.errors import DeviceError

PACKAGES = {"npu": "torch-npu"}
"""Packages that add a type of device. PyTorch loads them by itself (entry point group ``torch.backends``)."""

COLLECTIVES = {"cuda": "nccl", "npu": "hccl", "xpu": "xccl"}
"""Libraries that connect processes, by type of device."""


def resolve_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``; ``auto`` is the accelerator that PyTorch reports, else the CPU.

    Raises UserError if the device is unknown or not available here.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return _prepared(accelerator or torch.device("cpu"))
    try:
        device = torch.device(name)
        if device.type == "cpu":
            return device
        module = torch.get_device_module(device)
        if module.is_available() and (device.index or 0) < module.device_count():
            return _prepared(device)
    except (RuntimeError, AttributeError) as error:
        package = PACKAGES.get(name.split(":")[0])
        needs = f" (it comes with pip install {package})" if package else ""
        raise DeviceError(f"device {name!r}: not known to this PyTorch{needs}; give auto or cpu") from error
    raise DeviceError(f"device {name!r}: not available here; give auto or cpu")


def _prepared(device: torch.device) -> torch.device:
    """Return ``device`` after the settings that an NPU needs for every process.

    Older NPUs (Ascend 910A) otherwise compile operators one by one and keep weights in layouts of their own,
    which list operators refuse; on newer ones these are the defaults.
    """
    if device.type == "npu":
        npu: Any = torch.get_device_module(device)
        npu.set_compile_mode(jit_compile=False)
        npu.config.allow_internal_format = False
    return device


def process_group_backend(device: torch.device) -> str:
    """Return the back end of ``torch.distributed`` for ``device``: nccl, hccl (NPU), xccl or gloo."""
    return COLLECTIVES.get(device.type, "gloo")


def is_accelerator(device: torch.device) -> bool:
    """Return True if the device has its own memory, so that batches are copied to it."""
    return device.type != "cpu"
