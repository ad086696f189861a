"""Devices: the one part that knows them by name. Everything else goes by the device of the tensors.

A name from the user comes in (``choice``); a ``torch.device`` goes out, with ways to put things on it
(``placement``), to compile and capture programs for it (``programs``), and to ask it for its memory and state
(``state``). ``providers`` are the devices of other libraries. Two operators have two versions, for devices
with a kernel and without: suppression (``detection.nms.has_kernel``) and 3x3 convolutions (``has_winograd``).
"""

from fsaf.device.choice import COLLECTIVES, PACKAGES, is_accelerator, process_group_backend, resolve_device
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
from fsaf.device.providers import Provider, find_npu, find_provider
from fsaf.device.state import (
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
    "can_compile",
    "check_compile",
    "copy_images",
    "find_npu",
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
