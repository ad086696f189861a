"""Versions and devices of this machine, and what fsaf would use on it."""

import os
import platform
from typing import Any

import torch

from fsaf import environment
from fsaf.detection.nms import has_kernel
from fsaf.device import (
    can_compile,
    process_group_backend,
    resolve_device,
    runs_in,
    total_memory,
    version,
)
from fsaf.text import columns

REQUIRED = ("fsaf", "torch", "torchvision", "timm")
OPTIONAL = ("onnx", "onnxscript", "onnxruntime", "gradio", "supervision", "scikit-learn", "pycocotools")


def describe_machine(device: str = "auto") -> dict[str, Any]:
    """Return what ``fsaf info`` shows, as plain values for JSON.

    device: the device that precision, compilation and so on are for. Raises UserError if there is none such.
    """
    chosen = resolve_device(device)
    backend = process_group_backend(chosen)
    return {
        "versions": {"python": platform.python_version(), "system": platform.platform()}
        | {name: version(name) for name in REQUIRED}
        | {"torch": torch.__version__, "torch-npu": version("torch-npu")},
        "devices": devices(),
        "device": str(chosen),
        "precision": {"bf16": runs_in(chosen, torch.bfloat16), "fp16": runs_in(chosen, torch.float16)},
        "process_groups": {"backend": backend, "available": _has_backend(backend)},
        "compile": dict(zip(("works", "because"), can_compile(chosen), strict=True)),
        "fallbacks": {"nms": None if has_kernel(chosen.type) else "on the CPU"},
        "environment": environment.variables(),
        "optional": {name: version(name) for name in OPTIONAL},
    }


def devices() -> list[dict[str, Any]]:
    """Return name, description and bytes of memory (None if unknown) of the CPU and each accelerator."""
    found = [{"name": "cpu", "what": _cpu_name(), "memory": _host_memory()}]
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return found
    module = torch.get_device_module(accelerator)
    for index in range(torch.accelerator.device_count()):
        each = torch.device(accelerator.type, index)
        name = module.get_device_name(index) if hasattr(module, "get_device_name") else accelerator.type
        found.append({"name": str(each), "what": name, "memory": total_memory(each)})
    return found


def format_machine(machine: dict[str, Any]) -> str:
    """Return it as lines of text in two columns."""
    rows: list[tuple[str, str]] = [
        (name, value or "not installed") for name, value in machine["versions"].items()
    ]
    rows.append(("", ""))
    rows += [(each["name"], f"{each['what']}{_gigabytes(each['memory'])}") for each in machine["devices"]]
    groups, compiles = machine["process_groups"], machine["compile"]
    halves = [name for name, runs in machine["precision"].items() if runs]
    rows += [
        ("", ""),
        ("device", f"{machine['device']} is used"),
        ("precision", ", ".join(["fp32", *halves])),
        ("process groups", groups["backend"] + ("" if groups["available"] else " (not in this PyTorch)")),
        ("torch.compile", f"{'can work' if compiles['works'] else 'cannot work'}: {compiles['because']}"),
        ("suppression", machine["fallbacks"]["nms"] or "torchvision's kernel"),
    ]
    settings = [f"{name}={value}" for name, value in machine["environment"].items() if value is not None]
    rows += [("environment", ", ".join(settings) or "default")] if machine["environment"] else []
    rows.append(("", ""))
    rows += [(name, value or "not installed") for name, value in machine["optional"].items()]
    return columns(rows, "l")


def _gigabytes(count: int | None) -> str:
    return f", {count / 2**30:.0f} GiB" if count else ""


def _has_backend(name: str) -> bool:
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_backend_available(name)


def _cpu_name() -> str:
    return f"{os.cpu_count()} x {platform.processor() or platform.machine()}"


def _host_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
