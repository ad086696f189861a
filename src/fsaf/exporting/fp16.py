"""Write the network of an exported file in float16; what is around it stays in float32.

The network is what lies between the first and the last convolutions. onnxruntime's own converter would round
coordinates too, above 1024 to whole pixels: it tells parts of a graph apart by operator only, and the file it
writes with a list of nodes is not valid.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fsaf.errors import import_extra

FLOAT_OPERATORS = (
    "GlobalAveragePool",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "ReduceMean",
    "Softmax",
)
"""Sums over many places, which may exceed 65504, the largest float16. These stay in float32."""


def to_float16(source: Path, target: Path) -> None:
    """Write the exported file ``source`` to ``target`` with the network's weights and arithmetic in float16.

    Inputs, outputs, normalisation of images, decoding and suppression stay as they are.
    """
    onnx = import_extra("onnx", need="--fp16 needs")
    model = onnx.load(source)
    _Halving(onnx, model.graph).run()
    onnx.save(model, target)


def find_network(nodes: Sequence[Any]) -> list[Any]:
    """Return the convolutions among a graph's nodes, and all that is computed between them."""
    makers = {name: node for node in nodes for name in node.output}
    users = defaultdict(list)
    for node in nodes:
        for name in node.input:
            users[name].append(node)
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    after = _reach(convolutions, lambda node: [user for name in node.output for user in users[name]])
    before = _reach(convolutions, lambda node: [makers[name] for name in node.input if name in makers])
    return [node for node in nodes if id(node) in after and id(node) in before]


def _reach(start: Iterable[Any], following: Callable[[Any], Iterable[Any]]) -> set[int]:
    """Return the ids of the nodes that ``following`` leads to, with those of ``start``."""
    seen: set[int] = set()
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            waiting += following(node)
    return seen


class _Halving:
    """Work on one graph."""

    def __init__(self, onnx: Any, graph: Any) -> None:
        self.onnx, self.graph = onnx, graph
        self.half, self.single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
        self.values = [*graph.input, *graph.value_info, *graph.output]
        self.weights = {x.name: x for x in graph.initializer if x.data_type == self.single}
        self.made: dict[tuple[str, int], str] = {}
        """Names of the tensors that hold another in another type."""
        self.nodes: list[Any] = []

    def run(self) -> None:
        """Change the graph."""
        graph = self.graph
        floats = {x.name for x in self.values if x.type.tensor_type.elem_type == self.single}
        network = [node for node in find_network(graph.node) if node.op_type not in FLOAT_OPERATORS]
        inside = {id(node) for node in network}
        halves = {name for node in network for name in node.output} & floats
        for node in graph.node:
            for i, name in enumerate(node.input):
                if id(node) not in inside:
                    node.input[i] = self._cast(name, self.single) if name in halves else name
                elif name in self.weights and (node.op_type != "Resize" or not i):  # scales are float32
                    node.input[i] = self._round(name)
                elif name in floats - halves:
                    node.input[i] = self._cast(name, self.half)
            self.nodes.append(node)
        for value in self.values:
            if value.name in halves:
                value.type.tensor_type.elem_type = self.half
        used = {name for node in self.nodes for name in node.input}
        weights = [x for x in graph.initializer if x.name in used]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(weights)

    def _cast(self, name: str, kind: int) -> str:
        """Return the name of a tensor in another type; the first time, add the node that makes it."""
        if (name, kind) not in self.made:
            self.made[name, kind] = f"{name}_{'half' if kind == self.half else 'float'}"
            self.nodes.append(self.onnx.helper.make_node("Cast", [name], [self.made[name, kind]], to=kind))
        return self.made[name, kind]

    def _round(self, name: str) -> str:
        """Return the name of a weight in float16; the first time, add it."""
        if (name, self.half) not in self.made:
            self.made[name, self.half] = f"{name}_half"
            value = self.onnx.numpy_helper.to_array(self.weights[name]).astype(np.float16)
            self.graph.initializer.append(self.onnx.numpy_helper.from_array(value, f"{name}_half"))
        return self.made[name, self.half]
