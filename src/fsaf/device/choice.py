"""Choose a device by its name, and the library that connects processes on it."""

from typing import Any

import torch

from fsaf.errors import UserError

PACKAGES = {"npu": "torch-npu"}
"""Devices that a package brings. PyTorch loads it by itself (its entry point group ``torch.backends``)."""

COLLECTIVES = {"cuda": "nccl", "npu": "hccl", "xpu": "xccl"}
"""Libraries that connect processes, by type of device."""


def resolve_device(name: str = "auto") -> torch.device:
    """The device called ``name``; ``auto`` takes the accelerator PyTorch knows of, else the CPU.

    Raises UserError where the device is unknown or not available here.
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
        raise UserError(f"device {name!r}: not known to this PyTorch{needs}; give auto or cpu") from error
    raise UserError(f"device {name!r}: not available here; give auto or cpu")


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
    """The back end of ``torch.distributed`` for tensors on ``device``: nccl, hccl (NPU), xccl, or gloo."""
    return COLLECTIVES.get(device.type, "gloo")


def is_accelerator(device: torch.device) -> bool:
    """Whether the device has memory of its own, so that batches are copied to it."""
    return device.type != "cpu"
