"""Simulate a CUDA graph on the CPU, to test that the training step can be captured and replayed.

Like the real one it holds the operators of one recorded run and the memory that each read and wrote;
replaying runs them again on that memory, without any of the step's Python. What a real capture would not
notice, a value that the host put into the recording, goes wrong here as there. Recording undoes what it
changed, since a real capture only takes notes.
"""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class SimulatedGraph(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.made: set[int] = set()  # memory allocated during recording
        self.changed: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert func is not torch.ops.aten._local_scalar_dense.default, "a capture cannot read a value"
        for i, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._keep(args[i] if i < len(args) else kwargs.get(argument.name))
        result = func(*args, **kwargs)
        given = {_memory(tensor) for tensor in _tensors((args, kwargs))}
        self.made |= {_memory(tensor) for tensor in _tensors(result)} - given
        self.calls.append((func, args, kwargs, result))
        return result

    def _keep(self, value: Any) -> None:
        for tensor in _tensors(value):
            if _memory(tensor) not in self.made and id(tensor) not in self.changed:
                self.changed[id(tensor)] = (tensor, tensor.detach().clone())

    def undo(self) -> None:
        with torch.no_grad():
            for tensor, before in self.changed.values():
                tensor.copy_(before)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            given = {_memory(tensor) for tensor in _tensors((args, kwargs))}
            for old, new in zip(_tensors(result), _tensors(again), strict=True):
                if _memory(old) not in given:  # neither a view nor changed in place
                    old.copy_(new)

    def pool(self) -> tuple[int, int]:
        return (0, 1)


@contextlib.contextmanager
def _capture(graph: SimulatedGraph, pool: Any, capture_error_mode: str) -> Iterator[None]:
    with graph:
        yield
    graph.undo()


class _Stream:
    def wait_stream(self, other: "_Stream") -> None:
        assert isinstance(other, _Stream)


MODULE = SimpleNamespace(
    CUDAGraph=SimulatedGraph,
    graph=_capture,
    Stream=_Stream,
    current_stream=_Stream,
    stream=lambda stream: contextlib.nullcontext(),
)
"""Replacement for the part of ``torch.cuda`` that captures graphs."""
