"""Choosing the device; everything after goes by the device of the tensors.

This is the one place that knows devices by name. Network, objective and training ask ``torch.accelerator``,
``torch.amp`` and the tensors. Two operators come in two versions, by what a device has a kernel for: the
suppression of overlapping boxes (``fsaf.detection.nms.has_kernel`` asks PyTorch's dispatcher; ``fsaf info``
shows what is chosen), and 3x3 convolutions (``has_winograd``).
"""

import contextlib
import functools
import os
import warnings
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import torch

from fsaf.errors import UserError

PACKAGES = {"npu": "torch-npu"}
"""Devices that a package brings. PyTorch loads it by itself (its entry point group ``torch.backends``)."""

COLLECTIVES = {"cuda": "nccl", "npu": "hccl", "xpu": "xccl"}
"""Libraries that connect processes, by type of device."""

TRITON = {
    "cuda": ("triton", "pytorch-triton", "triton-rocm", "pytorch-triton-rocm"),
    "xpu": ("triton-xpu", "pytorch-triton-xpu"),
    "npu": ("triton-ascend",),
}
"""Packages in whose language ``torch.compile`` writes kernels, by type of device; the others take C++."""

GRAPHS = {"cuda": "CUDAGraph", "npu": "NPUGraph"}
"""What a device's module calls the graph that its kernels are captured in, by type of device."""

PROVIDERS = {
    "npu": ("CANNExecutionProvider", "onnxruntime-cann"),
    "cuda": ("CUDAExecutionProvider", "onnxruntime-gpu"),
}
"""Execution providers of onnxruntime and the packages that bring them, by type of device."""

CPU_PROVIDER = "CPUExecutionProvider"

HOST = "cpu"
"""Device of tensors that go to a library other than PyTorch."""


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
        package = PACKAGES.get(name.split(":")[0])
        needs = f" (it comes with pip install {package})" if package else ""
        raise UserError(f"device {name!r}: not known to this PyTorch{needs}; give auto or cpu") from error
    raise UserError(f"device {name!r}: not available here; give auto or cpu")


class Provider(NamedTuple):
    """How onnxruntime runs a file on a device."""

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
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        kind = accelerator.type if accelerator else "cpu"
        if kind not in PROVIDERS or PROVIDERS[kind][0] not in available:
            kind = "cpu"
    if kind == "cpu":
        return Provider("cpu", CPU_PROVIDER, "onnxruntime", [CPU_PROVIDER])
    if kind not in PROVIDERS:
        raise UserError(f"device {device!r}: ONNX files run on auto, cpu, {', '.join(sorted(PROVIDERS))}")
    provider, package = PROVIDERS[kind]
    if provider not in available:
        raise UserError(
            f"device {device!r}: the installed onnxruntime has no {provider}; replace it: "
            f"pip uninstall onnxruntime, then pip install {package}; or give auto or cpu"
        )
    check_number(device, kind, number)
    return Provider(f"{kind}:{number}", provider, package, [(provider, {"device_id": number}), CPU_PROVIDER])


def find_npu(device: str) -> tuple[str, int]:
    """Return name (``npu:1``) and number of the NPU called ``device`` (auto, npu, npu:1), for ais_bench.

    Raises UserError if it is another device, or if its number is too large.
    """
    kind, number = split_device(device)
    if kind not in ("auto", "npu"):
        raise UserError(f"device {device!r}: OM files run on an NPU only; give npu, or the ONNX file instead")
    check_number(device, "npu", number)
    return f"npu:{number}", number


def split_device(device: str) -> tuple[str, int]:
    """Return type and number of a device by its name, without asking PyTorch, which need not know it.

    Without a number it is that of the process among those a launcher started on this machine, else 0. Raises
    UserError if the number is none, or if several processes would share a device.
    """
    kind, colon, number = device.partition(":")
    if colon and not number.isdecimal():
        raise UserError(f"device {device!r}: {number!r} is no number; write {kind}:0")
    if colon and kind != "cpu" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"device {device!r}: with several processes each takes its own; give {kind}")
    return kind, int(number or os.environ.get("LOCAL_RANK", "0"))


def check_number(device: str, kind: str, number: int) -> None:
    """Raise UserError if PyTorch sees devices of type ``kind`` here, but not as many as ``number`` needs."""
    try:
        module = torch.get_device_module(kind)
        count = module.device_count() if module.is_available() else None
    except (RuntimeError, AttributeError):  # it knows no such device; the other library may
        return
    if count is not None and number >= count:
        raise UserError(
            f"device {device!r}: not available here; this machine has {kind}:0 to {kind}:{count - 1}"
        )


def process_group_backend(device: torch.device) -> str:
    """The back end of ``torch.distributed`` for tensors on ``device``: nccl, hccl (NPU), xccl, or gloo."""
    return COLLECTIVES.get(device.type, "gloo")


def is_accelerator(device: torch.device) -> bool:
    """Whether the device has memory of its own, so that batches are copied to it."""
    return device.type != "cpu"


def has_winograd(device: torch.device) -> bool:
    """Whether NNPACK's convolutions (float32) run on ``device``; asking makes it ready."""
    return device.type == "cpu" and _has_nnpack()


@functools.cache
def _has_nnpack() -> bool:
    return hasattr(torch, "_nnpack_available") and torch._nnpack_available()


def peak_memory(device: torch.device) -> int:
    """Most bytes that tensors on an accelerator took at once in this process; 0 where it does not tell."""
    try:
        return torch.accelerator.max_memory_allocated(device)
    except RuntimeError:  # its allocator is not of the kind that torch.accelerator asks
        module = torch.get_device_module(device)
        return module.max_memory_allocated(device) if hasattr(module, "max_memory_allocated") else 0


def total_memory(device: torch.device) -> int | None:
    """Bytes of memory of an accelerator; None where it does not tell."""
    try:
        return torch.accelerator.get_memory_info(device)[1]
    except (RuntimeError, AttributeError):  # as above; PyTorch 2.9 has no such function for some devices
        module = torch.get_device_module(device)
        return module.mem_get_info(device)[1] if hasattr(module, "mem_get_info") else None


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """State of PyTorch's random numbers, of the CPU and of ``device``."""
    state = {"cpu": torch.get_rng_state()}
    module = torch.get_device_module(device)
    if is_accelerator(device) and hasattr(module, "get_rng_state"):
        state[device.type] = module.get_rng_state(*_of(device))
    return state


def set_random_state(device: torch.device, state: dict[str, torch.Tensor]) -> None:
    """Restore what ``random_state`` gave; what is of another type of device is passed over."""
    torch.set_rng_state(state["cpu"])
    if device.type in state and is_accelerator(device):
        torch.get_device_module(device).set_rng_state(state[device.type], *_of(device))


def _of(device: torch.device) -> tuple[torch.device, ...]:
    return () if device.type == "mps" else (device,)  # there is one, which takes no argument


def runs_in(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a convolution runs on ``device`` under autocast to ``dtype``, found out by running one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a device may say that it leaves such a type alone
            autocast = torch.autocast(device.type, dtype)
        with autocast, torch.no_grad():
            ones = torch.ones(1, 1, 8, 8, device=device)
            result = torch.nn.functional.conv2d(ones, ones[:, :, :3, :3])
            return result.dtype == dtype and result.flatten()[0].item() == 9
    except RuntimeError:
        return False


class GraphTools:
    """Capturing kernels in a graph, as the module of a type of device offers it."""

    def __init__(self, device: torch.device) -> None:
        """Raises UserError where the device has no graphs."""
        module = torch.get_device_module(device) if is_accelerator(device) else None
        name = GRAPHS.get(device.type, "")
        if not (hasattr(module, name) and hasattr(module, "graph")):
            raise UserError(f"train.cuda_graphs = true: device {device} captures no graphs; leave it false")
        self.module: Any = module
        self.new: Any = getattr(module, name)

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Run on a stream of its own, as a capture does, after what was launched and before what follows."""
        stream, current = self.module.Stream(), self.module.current_stream()
        stream.wait_stream(current)
        with self.module.stream(stream):
            yield
        current.wait_stream(stream)

    def capture(self, graph: Any, pool: Any) -> contextlib.AbstractContextManager[None]:
        """Record in ``graph`` what is launched, without running it; memory comes from ``pool``, if not None.

        Other threads go on meanwhile: one of them pins the next batches.
        """
        return self.module.graph(graph, pool=pool, capture_error_mode="thread_local")
