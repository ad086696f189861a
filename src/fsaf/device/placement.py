"""Put networks and batches on a device, in the form that suits it."""

import functools
from typing import Any, TypeVar

import torch

Module = TypeVar("Module", bound=torch.nn.Module)

HOST = "cpu"
"""Device of tensors that go to a library other than PyTorch."""


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the memory format for convolutions: channels last; contiguous on an NPU, which has no other."""
    return torch.contiguous_format if device.type == "npu" else torch.channels_last


def place(model: Module, device: torch.device) -> Module:
    """Move a network to ``device``, in the memory format for it."""
    return model.to(device).to(memory_format=memory_format(device))


def copy_images(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy images (B, 3, H, W), channels last in memory, to ``device`` without waiting if they are pinned.

    The copy is of the memory as it lies: torch_npu would first make a contiguous copy on the host, and wait.
    """
    return images.permute(0, 2, 3, 1).to(device, non_blocking=True).permute(0, 3, 1, 2)


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Copy to memory of its own on the CPU; waits for the device."""
    return torch.empty_like(tensor, device="cpu", requires_grad=False).copy_(tensor.detach())


def use_exact_fp32(device: torch.device) -> None:
    """Turn off TF32 (CUDA) or HF32 (NPU), which round the operands of convolutions, for the whole process."""
    if device.type == "npu":
        npu: Any = torch.get_device_module(device)
        npu.conv.allow_hf32 = npu.matmul.allow_hf32 = False
    elif device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")


def fused_step_can_be_skipped(device: torch.device) -> bool:
    """Return whether PyTorch's fused optimizers leave everything as it is if ``found_inf`` is set.

    torch_npu's fused AdamW ignores it (op-plugin 2.13, FusedAdamWKernelNpuOpApi.cpp). Its fused SGD reads it
    on the host, or is not there (torch-npu before 2.12.0.post3, CANN before 9.1).
    """
    return device.type != "npu"


def has_winograd(device: torch.device) -> bool:
    """Return True if NNPACK's float32 convolutions run on ``device``; the call also initialises NNPACK."""
    return device.type == "cpu" and _has_nnpack()


@functools.cache
def _has_nnpack() -> bool:
    return hasattr(torch, "_nnpack_available") and torch._nnpack_available()
