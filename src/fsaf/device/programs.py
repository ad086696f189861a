"""Compile and capture programs for a device."""

import contextlib
import importlib.metadata
import os
import shutil
from collections.abc import Iterator
from typing import Any

import torch

from fsaf.device.choice import is_accelerator
from fsaf.errors import DeviceError

TRITON = {
    "cuda": ("triton", "pytorch-triton", "triton-rocm", "pytorch-triton-rocm"),
    "xpu": ("triton-xpu", "pytorch-triton-xpu"),
    "npu": ("triton-ascend",),
}
"""Packages of Triton, in which ``torch.compile`` writes kernels; other types of device take C++."""

GRAPHS = {"cuda": "CUDAGraph", "npu": "NPUGraph"}
"""Class of captured graphs in a device's module, by type of device."""


def version(package: str) -> str | None:
    """Return the version of a package, None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def can_compile(device: torch.device) -> tuple[bool, str]:
    """Return if ``torch.compile`` finds its tools for ``device``, and which tools, or what is missing.

    PyTorch's compiler writes C++ for a CPU and MPS, and Triton, which needs a C compiler too, for the others.
    """
    compiler = next((name for name in _compilers() if shutil.which(name)), None)
    if compiler is None:
        return False, "no C++ compiler found (CXX, g++, clang++, cl)"
    packages = TRITON.get(device.type, ())
    if not packages:
        return True, f"C++ compiler {compiler}"
    found = next((package for package in packages if version(package)), None)
    if found is None:
        return False, f"the package {packages[0]} is not installed"
    return True, f"{found} {version(found)}, C++ compiler {compiler}"


def check_compile(device: torch.device, backend: str) -> None:
    """Raise UserError if ``torch.compile`` cannot work for ``device`` with this back end."""
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise DeviceError(
            f"train.compile_backend = {backend!r}: not installed; PyTorch knows {', '.join(known)}"
        )
    works, why = can_compile(device)
    if backend == "inductor" and not works:
        other = "; or give another train.compile_backend" if device.type == "npu" else ""
        raise DeviceError(f"train.compile = true: cannot compile for {device}, {why}; leave it false{other}")


def _compilers() -> list[str]:
    return [name for name in (os.environ.get("CXX"), "g++", "clang++", "cl") if name]


class GraphTools:
    """Capture kernels in a graph, with the functions of the device's module."""

    def __init__(self, device: torch.device) -> None:
        """Raise UserError if the device has no graphs."""
        module = torch.get_device_module(device) if is_accelerator(device) else None
        name = GRAPHS.get(device.type, "")
        if not (hasattr(module, name) and hasattr(module, "graph")):
            raise DeviceError(f"train.graphs = true: device {device} does not support graphs; leave it false")
        self.module: Any = module
        self.new: Any = getattr(module, name)

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Context manager: run on a separate stream, after earlier launches and before later ones."""
        stream, current = self.module.Stream(), self.module.current_stream()
        stream.wait_stream(current)
        with self.module.stream(stream):
            yield
        current.wait_stream(stream)

    def capture(self, graph: Any, pool: Any) -> contextlib.AbstractContextManager[None]:
        """Context manager: record launches in ``graph`` without running them.

        pool: memory to use, or None. Other threads may go on, since one of them pins the next batches.
        """
        return self.module.graph(graph, pool=pool, capture_error_mode="thread_local")
