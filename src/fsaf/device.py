"""Choosing the device; everything after goes by the device of the tensors."""

import torch

from fsaf.errors import UserError


def resolve_device(name: str = "auto") -> torch.device:
    """The device called ``name``; ``auto`` takes the accelerator PyTorch knows of, else the CPU.

    Raises UserError where the device is unknown or not available here.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        if device.type == "cpu":
            return device
        module = torch.get_device_module(device)
        if module.is_available() and (device.index or 0) < module.device_count():
            return device
    except (RuntimeError, AttributeError) as error:
        raise UserError(f"device {name!r}: not known to this PyTorch; give auto or cpu") from error
    raise UserError(f"device {name!r}: not available here; give auto or cpu")
