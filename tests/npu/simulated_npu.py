"""A pretended Ascend NPU on CPU memory, as a PyTorch back end of the name ``npu`` written in Python.

``autoload`` claims PyTorch's PrivateUse1 key for the whole process, as torch_npu does; only processes started
for that call it (``conftest.py``). Its tensors are plain ``torch.Tensor`` with a storage on device ``npu:0``.
Every operator without a composite kernel ends in ``_run``, which computes it on CPU tensors that share that
memory, so results equal the CPU's.

What it enforces, as the hardware does: an operator takes tensors of one device (a number from the CPU apart),
and autocast casts the operators in PyTorch's lists for such back ends. What it counts: operators by name,
copies to and from the device, reads that make the host wait, operators with float64. What it does not show:
which operators an NPU has kernels for, its rounding, speed, streams and memory.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "npu"
MEMORY = 64 * 2**30
CPU = torch.device("cpu")

counts: Counter[str] = Counter()
"""Since the last ``clear()``: operators, ``to device``, ``from device``, ``host waits``, ``float64``."""


class _Memory:
    """Who owns the bytes behind each storage of the device."""

    def __init__(self) -> None:
        self.owners: dict[int, tuple[StorageWeakRef, torch.UntypedStorage]] = {}
        self.sweep_at, self.used, self.peak = 256, 0, 0

    def device_storage(self, owner: torch.UntypedStorage) -> torch.UntypedStorage:
        """A new storage of the device on the bytes of a CPU storage, kept alive as long as it."""
        if len(self.owners) >= self.sweep_at:
            self.sweep()
        storage = torch._C._construct_storage_from_data_pointer(
            owner.data_ptr(), torch.device(NAME, 0), owner.nbytes()
        )
        if owner.nbytes():
            self.owners[owner.data_ptr()] = StorageWeakRef(storage), owner
            self.used += owner.nbytes()
            self.peak = max(self.peak, self.used)
        return storage

    def sweep(self) -> None:
        """Free what no tensor of the device refers to any more."""
        for pointer in [p for p, (weak, _) in self.owners.items() if weak.expired()]:
            self.used -= self.owners.pop(pointer)[1].nbytes()
        self.sweep_at = max(256, 2 * len(self.owners))

    def owner(self, storage: torch.UntypedStorage) -> torch.UntypedStorage:
        return self.owners[storage.data_ptr()][1] if storage.nbytes() else torch.UntypedStorage(0)


memory = _Memory()


def _set(tensor: torch.Tensor, storage: Any, offset: int, size: Any, stride: Any) -> None:
    """``Tensor.set_`` without a check of the device: it only moves pointers."""
    op = torch.ops.aten.set_.source_Storage_storage_offset
    op._op_dk(torch._C.DispatchKey.CPU, tensor, storage, offset, size, stride)


def _on_device(x: object) -> bool:
    return isinstance(x, torch.Tensor) and x.device.type == NAME


def _to_cpu(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory as a CPU tensor."""
    alias = torch.empty(0, dtype=tensor.dtype, device=CPU)
    owner = memory.owner(tensor.untyped_storage())
    _set(alias, owner, tensor.storage_offset(), tensor.size(), tensor.stride())
    return alias


def _to_device(tensor: torch.Tensor, base: torch.Tensor | None = None) -> torch.Tensor:
    """The same memory as a tensor of the device; ``base``: the tensor it is a view of."""
    # In inference mode a view of an ordinary tensor is an ordinary tensor.
    inference = torch.is_inference_mode_enabled() and (base is None or base.is_inference())
    with torch.inference_mode(inference):
        result = torch._C._acc.create_empty_tensor((0,), tensor.dtype)
        storage = memory.device_storage(tensor.untyped_storage()) if base is None else base.untyped_storage()
        _set(result, storage, tensor.storage_offset(), tensor.size(), tensor.stride())
    return result


def _count(op: torch._ops.OpOverload, name: str, given: list[Any], written: set[int]) -> None:
    """Count the operator; raise where tensors of two devices meet."""
    counts[str(op)] += 1
    if any(x.dtype in (torch.float64, torch.complex128) for x in given):
        counts["float64"] += 1
    if name == "aten::_local_scalar_dense":
        counts["host waits"] += 1
    from_cpu = [x for x in given if not _on_device(x)]
    if name == "aten::copy_" and from_cpu:
        counts["from device" if id(from_cpu[0]) in written else "to device"] += 1
    elif any(x.dim() > 0 for x in from_cpu):
        raise RuntimeError(f"{op}: expected all tensors to be on the same device, found {NAME}:0 and cpu")


def _map(function: Callable[[Any], Any], value: Any) -> Any:
    """``function`` of a value, or of the items of a list or tuple."""
    if isinstance(value, (list, tuple)):
        return type(value)(_map(function, item) for item in value)
    return function(value)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


@functools.cache
def _signature(op: torch._ops.OpOverload) -> tuple[list[tuple[str, bool]], set[str]]:
    """Name of each argument and whether it is one tensor; names of those that the operator writes to."""
    arguments = op._schema.arguments
    written = {a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write}
    return [(a.name, str(a.type) == "Tensor") for a in arguments], written


def _run(op: torch._ops.OpOverload, *args: Any, **kwargs: Any) -> Any:
    """Compute an operator on CPU tensors over the device's memory."""
    if op._schema.name == "aten::_copy_from":  # how PyTorch copies between the CPU and a PrivateUse1 device
        source, target, *rest = args
        return _run(torch.ops.aten.copy_.default, target, source, *rest)
    arguments, writes_to = _signature(op)
    named = {name: x for (name, _), x in zip(arguments, args, strict=False)} | kwargs
    for name, is_tensor in arguments:  # a Python number that stood for a tensor arrives as a number
        if is_tensor and isinstance(named.get(name), (bool, int, float)):
            named[name] = torch.tensor(named[name])
    given = list(_tensors(named.values()))
    written = {id(x) for x in _tensors(named[name] for name in writes_to if name in named)}
    _count(op, op._schema.name, given, written)

    aliases = {id(x): _to_cpu(x) if _on_device(x) else x for x in given}
    bases = {aliases[id(x)].untyped_storage().data_ptr(): x for x in given if _on_device(x)}
    originals = {id(aliases[id(x)]): x for x in given if id(x) in written}

    def enter(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return aliases[id(x)]
        return CPU if isinstance(x, torch.device) and x.type == NAME else x

    def leave(x: Any) -> Any:
        if not isinstance(x, torch.Tensor) or id(x) in originals:
            return originals.get(id(x), x)
        return _to_device(
            x, bases.get(x.untyped_storage().data_ptr()) if x.untyped_storage().nbytes() else None
        )

    results = op(**{name: _map(enter, x) for name, x in named.items()})
    for x in given:  # out= and resize_ may have moved or reshaped what they write to
        alias = aliases[id(x)]
        if id(x) in written and _on_device(x) and not _same_layout(alias, x):
            storage = memory.device_storage(alias.untyped_storage())
            _set(x, storage, alias.storage_offset(), alias.size(), alias.stride())
    return _map(leave, results)


def _same_layout(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        a.size() == b.size()
        and a.stride() == b.stride()
        and a.storage_offset() == b.storage_offset()
        and a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
    )


class _Module(ModuleType):
    """``torch.npu``: what PyTorch and its users ask a device module for."""

    def __init__(self) -> None:
        super().__init__(f"torch.{NAME}")

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def set_device(self, device: object) -> None:
        pass

    def synchronize(self, device: object = None) -> None:
        pass

    def get_device_name(self, device: object = None) -> str:
        return "simulated NPU"

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        return MEMORY - memory.used, MEMORY

    def max_memory_allocated(self, device: object = None) -> int:
        return memory.peak

    def is_bf16_supported(self) -> bool:
        return True

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16, torch.float32]

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        pass


# The part of PyTorch's lists for autocast (aten/src/ATen/autocast_mode.h) that a detector meets. torch_npu
# registers these lists in C++.
LOWER_PRECISION = [
    "conv2d",
    "convolution",
    "_convolution",
    "linear",
    "matmul",
    "mm",
    "addmm",
    "bmm",
    "baddbmm",
]
FLOAT32 = [
    "binary_cross_entropy_with_logits",
    "log",
    "log1p",
    "exp",
    "pow.Tensor_Scalar",
    "sum",
    "group_norm",
    "softmax.int",
]


def _autocast(op: torch._ops.OpOverload, dtype: Callable[[], torch.dtype]) -> Callable[..., Any]:
    exclude = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)

    def kernel(*args: Any, **kwargs: Any) -> Any:
        def cast(x: Any) -> Any:
            if _on_device(x) and x.is_floating_point() and x.dtype is not torch.float64:
                return x.to(dtype())
            return x

        with torch._C._ExcludeDispatchKeyGuard(exclude):
            return op(*_map(cast, args), **{name: _map(cast, x) for name, x in kwargs.items()})

    return kernel


def _register_autocast(library: torch.library.Library) -> None:
    for names, dtype in (
        (LOWER_PRECISION, lambda: torch.get_autocast_dtype(NAME)),
        (FLOAT32, lambda: torch.float32),
    ):
        for name in names:
            packet, _, overload = name.partition(".")
            op = getattr(getattr(torch.ops.aten, packet), overload or "default")
            library.impl(name, _autocast(op, dtype), "AutocastPrivateUse1")


def _patch_what_only_cpp_can_register() -> None:
    """A back end registers its allocators, of its own and of pinned memory, in C++ alone."""
    storage_clone, pin_memory = torch.UntypedStorage.clone, torch.Tensor.pin_memory

    def clone(self: torch.UntypedStorage) -> torch.UntypedStorage:
        if self.device.type != NAME:
            return storage_clone(self)
        return memory.device_storage(memory.owner(self).clone())

    def pinned(self: torch.Tensor, device: object = None) -> torch.Tensor:
        return self.clone() if self.device.type == "cpu" else pin_memory(self)

    torch.UntypedStorage.clone = clone  # type: ignore[method-assign]
    torch.Tensor.pin_memory = pinned  # type: ignore[method-assign, assignment]


def _register_convolution(library: torch.library.Library) -> None:
    """The two operators that PyTorch leaves to the back end."""

    def backward(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *rest: Any) -> Any:
        sizes = [weight.shape[0]]  # of the bias, which the mask may leave out
        return _run(torch.ops.aten.convolution_backward.default, grad, x, weight, sizes, *rest)

    forward = functools.partial(_run, torch.ops.aten.convolution.default)
    library.impl("convolution_overrideable", forward, "PrivateUse1")
    library.impl("convolution_backward_overrideable", backward, "PrivateUse1")


def _register_pointers(library: torch.library.Library) -> None:
    """Operators that only move pointers; the CPU's kernels do it for tensors of any device."""
    for name in ("source_Storage", "source_Storage_storage_offset", "source_Tensor"):
        op = getattr(torch.ops.aten.set_, name)
        library.impl(f"set_.{name}", functools.partial(op._op_dk, torch._C.DispatchKey.CPU), "PrivateUse1")


def _register_group_norm(library: torch.library.Library) -> None:
    """torch_npu has a kernel. PyTorch's own composite one, in 2.14, takes no channels-last tensors."""
    kernel = functools.partial(_run, torch.ops.aten.native_group_norm.default)
    library.impl("native_group_norm", kernel, "PrivateUse1")


_libraries: list[torch.library.Library] = []


def autoload() -> None:
    """Register the back end; PyTorch calls it as it is imported (entry point group ``torch.backends``)."""
    if _libraries:
        return
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    fallback = torch.library.Library("_", "IMPL")
    fallback.fallback(_run, "PrivateUse1")
    fallback.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    _register_convolution(aten)
    _register_pointers(aten)
    _register_group_norm(aten)
    _register_autocast(aten)
    _libraries.extend([fallback, aten])
    _patch_what_only_cpp_can_register()


@contextmanager
def counting() -> Any:
    """Count from zero; the counts are complete when the block ends."""
    counts.clear()
    found: Counter[str] = Counter()
    yield found
    found.update(counts)
