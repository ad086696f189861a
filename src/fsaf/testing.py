"""Record the operators that PyTorch runs, and find those that a compiler or an NPU refuses.

``Recorder`` writes down every operator that the dispatcher sees, forward, backward and optimizer alike::

    with Recorder() as recorder:
        step(images, boxes)
    print(recorder.report())          # nothing to see: ""
    recorder.calls                    # equal for two batches of one shape

The rules, and where they come from:

dynamic shape
    PyTorch tags the operator ``dynamic_output_shape``: ``nonzero``, ``masked_select``, ``unique``. The size
    of its result is known only once it has run: the host must wait, and a graph ends there.
host read
    The tag ``data_dependent_output`` (``.item()``, ``bool(x)``, ``equal``), and the methods that read memory
    without an operator (``tolist``, ``numpy``, ``cpu``): the host waits for the device.
device copy
    Operands or results on more than one device. A step finds its batch on the device and stays there.
mask index
    ``x[mask]`` and ``x[mask] = y`` with booleans, which are ``nonzero`` in disguise.
int64 reduction
    Sums, running sums, products, means, and order (max, min, sort, top-k) of 64-bit integers; a sum of
    booleans is one. Ascend computes them slowly or on the host; beside dynamic shapes they are what the
    original NPU port had to rewrite.
float64
    Ascend's matrix units lack the type, MPS has none, and most GPUs are slow at it.
"""

import sys
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ACCUMULATING = {
    *("sum", "nansum", "cumsum", "cumsum_", "prod", "cumprod", "cumprod_", "mean", "bincount", "histc"),
    *("scatter_add", "scatter_add_", "index_add", "index_add_", "scatter_reduce", "scatter_reduce_"),
}
"""Operators whose arithmetic is in the type of their input or of their result."""
ORDERING = {
    *("max", "min", "amax", "amin", "aminmax", "argmax", "argmin", "cummax", "cummin"),
    *("sort", "argsort", "topk", "kthvalue", "median", "mode"),
}
"""Operators that compare elements of their input; their result may hold indices."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
HOST_METHODS = {
    Tensor.tolist: "tolist",
    Tensor.numpy: "numpy",
    Tensor.__array__: "__array__",
    Tensor.cpu: "cpu",
}
"""Methods that copy to the host and, for a tensor on the CPU, dispatch no operator."""
_TORCH = str(Path(torch.__file__).parent)


class Form(NamedTuple):
    """Shape, type and device of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: str

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)} on {self.device}"


class Call(NamedTuple):
    """One call of an operator."""

    operator: str
    """``namespace.name.overload``."""
    inputs: tuple[Form, ...]
    outputs: tuple[Form, ...]


class Violation(NamedTuple):
    """A rule that a call breaks."""

    rule: str
    operator: str
    tensor: str
    """The input or output, with its shape, type and device."""
    source: str
    """``file:line in function: code``; for a backward operator the line of its forward."""

    def __str__(self) -> str:
        return f"{self.rule}: {self.operator}, {self.tensor}\n    {self.source}"


class Recorder(TorchDispatchMode):
    """Context manager that records operators and violations of the rules above."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.violations: list[Violation] = []
        self._methods = _HostMethods(self)
        self._anomaly = False

    def __enter__(self) -> "Recorder":
        # Anomaly mode keeps, with each step of the backward pass, the lines that made it.
        self._anomaly = torch.is_anomaly_enabled()
        torch.autograd.set_detect_anomaly(True, check_nan=False)
        self._methods.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._methods.__exit__(*error)
        torch.autograd.set_detect_anomaly(self._anomaly)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs, devices = _forms((args, kwargs)), {x.device.type for x in _tensors((args, kwargs))}
        result = func(*args, **kwargs)
        outputs = _forms(result)
        devices |= {x.device.type for x in _tensors(result)}
        self.calls.append(Call(str(func), inputs, outputs))
        for rule, tensor in _broken(func, args, inputs, outputs, devices):
            self.violations.append(Violation(rule, str(func), tensor, _source()))
        return result

    def report(self) -> str:
        """Return each violation once, with its count; empty if there is none."""
        counts = Counter(self.violations)
        return "\n".join(f"{violation} (x{count})" for violation, count in counts.items())

    def operators(self) -> dict[str, int]:
        """Return the number of calls of each operator."""
        return dict(Counter(call.operator for call in self.calls))


class _HostMethods(TorchFunctionMode):
    """Record calls that dispatch no operator."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = HOST_METHODS.get(func)
        if name is not None:
            form = f"input 0 {_forms(args)[0]}"
            self.recorder.violations.append(Violation("host read", f"Tensor.{name}", form, _source()))
        return func(*args, **(kwargs or {}))


def first_difference(left: Recorder, right: Recorder) -> str | None:
    """Describe the first difference of two recordings; None if they are the same program."""
    for i, (a, b) in enumerate(zip(left.calls, right.calls, strict=False)):
        if a != b:
            return f"call {i}: {a} / {b}"
    if len(left.calls) != len(right.calls):
        return f"{len(left.calls)} / {len(right.calls)} calls"
    return None


def _tensors(values: Any) -> list[Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, Tensor)]


def _forms(values: Any) -> tuple[Form, ...]:
    return tuple(Form(tuple(x.shape), x.dtype, str(x.device)) for x in _tensors(values))


def _broken(
    func: Any, args: Any, inputs: tuple[Form, ...], outputs: tuple[Form, ...], devices: set[str]
) -> list[tuple[str, str]]:
    """Yield the rules that a call breaks, each with the tensor at fault."""
    name, tags = func.overloadpacket.__name__, set(func.tags)
    named = [(f"input {i} {form}", form) for i, form in enumerate(inputs)]
    results = [(f"output {i} {form}", form) for i, form in enumerate(outputs)]
    first = next((text for text, _ in named + results), "no tensor")
    found = []
    if name in INDEXING:  # tagged as dynamic, which they are with masks alone
        masks = [x for x in _tensors(args[1]) if x.dtype in (torch.bool, torch.uint8)]
        found += [("mask index", f"index {form}") for form in _forms(masks)]
    elif torch.Tag.dynamic_output_shape in tags:
        found.append(("dynamic shape", first))
    if torch.Tag.data_dependent_output in tags:
        found.append(("host read", first))
    if len(devices) > 1:
        found.append(("device copy", ", ".join(text for text, _ in named + results)))
    reduced = named[:1] + results[:1] if name in ACCUMULATING else named[:1] if name in ORDERING else []
    found += [("int64 reduction", text) for text, form in reduced if form.dtype is torch.int64][:1]
    found += [("float64", text) for text, form in named + results if form.dtype is torch.float64][:1]
    return found


def _source() -> str:
    """Return the innermost line of the call stack outside PyTorch and this file."""
    node = torch._C._current_autograd_node()
    lines = (getattr(node, "metadata", None) or {}).get("traceback_", [])
    for line in reversed(lines):
        if _TORCH not in line and __file__ not in line:
            place, _, code = line.strip().partition("\n")
            return f"{place.strip().removeprefix('File ')}: {code.strip().splitlines()[0] if code else ''}"
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_TORCH, __file__, "<")):
            summary = traceback.extract_stack(frame, limit=1)[0]
            return f'"{summary.filename}", line {summary.lineno}, in {summary.name}: {summary.line}'
        frame = frame.f_back
    return "unknown"
