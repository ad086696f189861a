"""Environment variables that have to be set before PyTorch is imported."""

import importlib.util
import os

NPU = {"TASK_QUEUE_ENABLE": "2", "CPU_AFFINITY_CONF": "2"}
"""What Ascend recommends if the host launches operators more slowly than an NPU runs them."""


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
