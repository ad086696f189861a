"""Devices of other libraries: onnxruntime's execution providers, OpenVINO's plugins, NPUs by number."""

import os
from collections.abc import Collection
from typing import Any, NamedTuple

from fsaf.errors import DeviceError, UserError

PROVIDERS = {
    "npu": ("CANNExecutionProvider", "onnxruntime-cann"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
}
"""Execution providers of onnxruntime and the packages that bring them, by type of device."""

CPU_PROVIDER = "CPUExecutionProvider"


class Provider(NamedTuple):
    """An execution provider of onnxruntime, for a device."""

    device: str
    """Name with number, ``npu:0``, or ``cpu``."""
    name: str
    """Execution provider."""
    package: str
    """Package that brings it."""
    options: list[Any]
    """Value of the argument ``providers`` of an ``InferenceSession``."""


def find_provider(device: str, available: Collection[str]) -> Provider:
    """Return onnxruntime's execution provider for ``device`` (auto, cpu, cuda, npu; perhaps with a number).

    ``auto`` takes the accelerator that PyTorch sees, if ``available``, the providers of the installed
    onnxruntime, has its provider, else the CPU. Raises UserError if the device has no provider here, or if
    its number is too large.
    """
    kind, number = split_device(device)
    if kind == "auto":
        kind = _accelerator({each for each, (name, _) in PROVIDERS.items() if name in available})
    if kind == "cpu":
        return Provider("cpu", CPU_PROVIDER, "onnxruntime", [CPU_PROVIDER])
    if kind not in PROVIDERS:
        raise DeviceError(f"device {device!r}: ONNX files run on auto, cpu, {', '.join(sorted(PROVIDERS))}")
    provider, package = PROVIDERS[kind]
    if provider not in available:
        raise UserError(
            f"device {device!r}: the installed onnxruntime has no {provider}; replace it: "
            f"pip uninstall onnxruntime, then pip install {package}; or give auto or cpu"
        )
    check_number(device, kind, number)
    return Provider(f"{kind}:{number}", provider, package, [(provider, {"device_id": number}), CPU_PROVIDER])


def _accelerator(kinds: Collection[str]) -> str:
    """Return the type of the accelerator that PyTorch sees if it is one of ``kinds``, else ``cpu``."""
    if not kinds:
        return "cpu"
    import torch  # late: onnxruntime for a CPU needs no PyTorch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator and accelerator.type in kinds else "cpu"


def find_openvino(device: str) -> tuple[str, str]:
    """Return the name of ``device`` (auto, cpu, xpu, xpu:1), and its name in OpenVINO. ``auto`` is the CPU.

    Raises UserError if it is another device.
    """
    kind, number = split_device(device)
    if kind in ("auto", "cpu"):
        return "cpu", "CPU"
    if kind != "xpu":
        raise DeviceError(f"device {device!r}: OpenVINO files run on auto, cpu, xpu (Intel's GPUs)")
    return f"xpu:{number}", f"GPU.{number}"


def find_npu(device: str) -> tuple[str, int]:
    """Return name (``npu:1``) and number of the NPU called ``device`` (auto, npu, npu:1), for ais_bench.

    Raises UserError if it is another device, or if its number is too large.
    """
    kind, number = split_device(device)
    if kind not in ("auto", "npu"):
        raise DeviceError(
            f"device {device!r}: OM files run on an NPU only; give npu, or the ONNX file instead"
        )
    check_number(device, "npu", number)
    return f"npu:{number}", number


def split_device(device: str) -> tuple[str, int]:
    """Return type and number of a device by its name, without asking PyTorch, which need not know it.

    Without a number it is that of the process among those a launcher started on this machine, else 0. Raises
    UserError if the number is none, or if several processes would share a device.
    """
    kind, colon, number = device.partition(":")
    if colon and not number.isdecimal():
        raise DeviceError(f"device {device!r}: {number!r} is not a number; write {kind}:0")
    if colon and kind != "cpu" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise DeviceError(f"device {device!r}: several processes need one device each; give {kind}")
    return kind, int(number or os.environ.get("LOCAL_RANK", "0"))


def check_number(device: str, kind: str, number: int) -> None:
    """Raise UserError if PyTorch sees devices of type ``kind`` here, but not as many as ``number`` needs."""
    import torch

    try:
        module = torch.get_device_module(kind)
        count = module.device_count() if module.is_available() else None
    except (RuntimeError, AttributeError):  # it knows no such device; the other library may
        return
    if count is not None and number >= count:
        raise DeviceError(
            f"device {device!r}: not available here; this machine has {kind}:0 to {kind}:{count - 1}"
        )
