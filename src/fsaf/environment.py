"""Check and set up the environment before PyTorch is imported: variables, and builds that would abort."""

import importlib.util
import os
import re
from pathlib import Path

from fsaf.errors import DeviceError

NPU = {"TASK_QUEUE_ENABLE": "2", "CPU_AFFINITY_CONF": "2"}
"""Ascend's recommendation if the host launches operators more slowly than an NPU runs them."""

AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"


def set_environment() -> None:
    """Set the variables of ``NPU``, if torch_npu is installed, except those that the user has set.

    Processes that are started later inherit them.
    """
    if importlib.util.find_spec("torch_npu"):
        for name, value in NPU.items():
            os.environ.setdefault(name, value)


def variables() -> dict[str, str | None]:
    """Return the values of the variables of ``NPU``, None if not set; nothing without torch_npu."""
    return {name: os.environ.get(name) for name in NPU} if importlib.util.find_spec("torch_npu") else {}


def check_builds() -> None:
    """Raise UserError if torch_npu is installed beside PyTorch's CUDA build, which would abort Python."""
    if os.environ.get(AUTOLOAD) == "0" or not importlib.util.find_spec("torch_npu"):
        return
    torch = importlib.util.find_spec("torch")
    version = Path(torch.origin).with_name("version.py") if torch and torch.origin else None
    text = version.read_text(encoding="utf-8") if version and version.is_file() else ""
    if found := re.search(r"^cuda\b.*=\s*'([\d.]+)'", text, re.M):
        raise DeviceError(
            f"torch-npu needs PyTorch's CPU build, and this is the build for CUDA {found[1]}, beside which "
            f"Python aborts; install the CPU build (docs/ascend.md), or set {AUTOLOAD}=0 to run without NPUs"
        )


def explain(error: RuntimeError) -> str | None:
    """Return what to do about PyTorch's error if it could not load torch_npu; None for any other error."""
    if "Failed to load the backend extension: torch_npu" not in str(error):
        return None
    cause = str(error.__cause__ or error.__context__ or error).splitlines()[0]
    return (
        f"torch-npu cannot be loaded ({cause}); run `source set_env.sh` of CANN in this shell, or set "
        f"{AUTOLOAD}=0 to run without NPUs"
    )
