"""Devices: the one part that knows them by name. Everything else goes by the device of the tensors.

A name from the user comes in (``choice``); a ``torch.device`` goes out, with ways to put things on it
(``placement``), to compile and capture programs for it (``programs``), and to ask it for its memory and state
(``state``). ``providers`` are the devices of other libraries. Two operators have two versions, for devices
with a kernel and without: suppression (``detection.nms.has_kernel``) and 3x3 convolutions (``has_winograd``).
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsaf.device.choice import (
        COLLECTIVES,
        PACKAGES,
        is_accelerator,
        process_group_backend,
        resolve_device,
    )
    from fsaf.device.placement import (
        HOST,
        copy_images,
        fused_step_can_be_skipped,
        has_winograd,
        memory_format,
        place,
        to_host,
        use_exact_fp32,
    )
    from fsaf.device.programs import GRAPHS, TRITON, GraphTools, can_compile, check_compile, version
    from fsaf.device.providers import Provider, find_npu, find_openvino, find_provider
    from fsaf.device.state import (
        bf16_unit,
        free_cache,
        free_memory,
        memory_gb,
        peak_memory,
        random_state,
        reset_peak_memory,
        runs_in,
        set_random_state,
        total_memory,
    )

__all__ = [
    "COLLECTIVES",
    "GRAPHS",
    "HOST",
    "PACKAGES",
    "TRITON",
    "GraphTools",
    "Provider",
    "bf16_unit",
    "can_compile",
    "check_compile",
    "copy_images",
    "find_npu",
    "find_openvino",
    "find_provider",
    "free_cache",
    "free_memory",
    "fused_step_can_be_skipped",
    "has_winograd",
    "is_accelerator",
    "memory_format",
    "memory_gb",
    "peak_memory",
    "place",
    "process_group_backend",
    "random_state",
    "reset_peak_memory",
    "resolve_device",
    "runs_in",
    "set_random_state",
    "to_host",
    "total_memory",
    "use_exact_fp32",
    "version",
]

_HOMES = {
    "COLLECTIVES": "fsaf.device.choice",
    "GRAPHS": "fsaf.device.programs",
    "GraphTools": "fsaf.device.programs",
    "HOST": "fsaf.device.placement",
    "PACKAGES": "fsaf.device.choice",
    "Provider": "fsaf.device.providers",
    "TRITON": "fsaf.device.programs",
    "bf16_unit": "fsaf.device.state",
    "can_compile": "fsaf.device.programs",
    "check_compile": "fsaf.device.programs",
    "copy_images": "fsaf.device.placement",
    "find_npu": "fsaf.device.providers",
    "find_openvino": "fsaf.device.providers",
    "find_provider": "fsaf.device.providers",
    "free_cache": "fsaf.device.state",
    "free_memory": "fsaf.device.state",
    "fused_step_can_be_skipped": "fsaf.device.placement",
    "has_winograd": "fsaf.device.placement",
    "is_accelerator": "fsaf.device.choice",
    "memory_format": "fsaf.device.placement",
    "memory_gb": "fsaf.device.state",
    "peak_memory": "fsaf.device.state",
    "place": "fsaf.device.placement",
    "process_group_backend": "fsaf.device.choice",
    "random_state": "fsaf.device.state",
    "reset_peak_memory": "fsaf.device.state",
    "resolve_device": "fsaf.device.choice",
    "runs_in": "fsaf.device.state",
    "set_random_state": "fsaf.device.state",
    "to_host": "fsaf.device.placement",
    "total_memory": "fsaf.device.state",
    "use_exact_fp32": "fsaf.device.placement",
    "version": "fsaf.device.programs",
}
"""The module that each name comes from."""


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: an exported file is opened without PyTorch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fsaf.device' has no attribute {name!r}")
