"""Query a device: memory, state of its random numbers, types it computes in."""

import sys
import warnings
from typing import Any

import torch

from fsaf.device.choice import is_accelerator


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that tensors took on an accelerator; 0 if the device does not report it."""
    try:
        return torch.accelerator.max_memory_allocated(device)
    except RuntimeError:  # torch.accelerator does not know the allocator of every device
        module = torch.get_device_module(device)
        return module.max_memory_allocated(device) if hasattr(module, "max_memory_allocated") else 0


def reset_peak_memory(device: torch.device) -> None:
    """Let ``peak_memory`` count from now on, if the device can."""
    try:
        torch.accelerator.reset_peak_memory_stats(device)
    except RuntimeError:  # as above
        module = torch.get_device_module(device)
        if hasattr(module, "reset_peak_memory_stats"):
            module.reset_peak_memory_stats(device)


def free_cache(device: torch.device) -> None:
    """Return memory that PyTorch keeps for later tensors to the device, if the device can."""
    module = torch.get_device_module(device)
    if hasattr(module, "empty_cache"):
        module.empty_cache()


def free_memory(device: torch.device) -> int | None:
    """Return the bytes of an accelerator's memory that are free; None if the device does not report it."""
    return _memory_info(device)[0]


def total_memory(device: torch.device) -> int | None:
    """Return the bytes of memory of an accelerator; None if the device does not report it."""
    return _memory_info(device)[1]


def _memory_info(device: torch.device) -> tuple[int, int] | tuple[None, None]:
    """Return free and total bytes."""
    try:
        return torch.accelerator.get_memory_info(device)
    except (RuntimeError, AttributeError):  # as above
        module = torch.get_device_module(device)
        return module.mem_get_info(device) if hasattr(module, "mem_get_info") else (None, None)


def memory_gb(device: torch.device) -> float:
    """Return the peak memory of an accelerator, or of this process on a CPU; 0 if the system reports none."""
    if is_accelerator(device):
        return peak_memory(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of PyTorch's random numbers, of the CPU and of ``device``."""
    state = {"cpu": torch.get_rng_state()}
    module = torch.get_device_module(device)
    if is_accelerator(device) and hasattr(module, "get_rng_state"):
        state[device.type] = module.get_rng_state(*_of(device))
    return state


def set_random_state(device: torch.device, state: dict[str, torch.Tensor]) -> None:
    """Restore the result of ``random_state``; the state of another type of device is ignored."""
    torch.set_rng_state(state["cpu"])
    if device.type in state and is_accelerator(device):
        torch.get_device_module(device).set_rng_state(state[device.type], *_of(device))


def _of(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # MPS has one device and takes no argument


def runs_in(device: torch.device, dtype: torch.dtype) -> bool:
    """Return True if a convolution runs on ``device`` under autocast to ``dtype``; runs one to find out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some devices warn that they do not support the type
            autocast = torch.autocast(device.type, dtype)
        with autocast, torch.no_grad():
            ones = torch.ones(1, 1, 8, 8, device=device)
            result = torch.nn.functional.conv2d(ones, ones[:, :, :3, :3])
            return result.dtype == dtype and result.flatten()[0].item() == 9
    except RuntimeError:
        return False


def bf16_unit(device: torch.device) -> str | None:
    """Return the name of what computes in bfloat16 on ``device``; None if that is emulated, or not known.

    For a CPU the name of its instructions, ``avx512_bf16`` or ``amx_bf16``.
    """
    module = torch.get_device_module(device)
    if not is_accelerator(device):
        tests = {"amx_bf16": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
        return next((name for name, test in tests.items() if getattr(module, test, bool)()), None)
    supports: Any = getattr(module, "is_bf16_supported", None)
    if supports is None:
        return None
    try:
        found = supports(including_emulation=False)
    except TypeError:  # of an NPU, which has no emulation
        found = supports()
    return device.type if found else None
