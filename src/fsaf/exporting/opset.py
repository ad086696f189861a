"""Bring an ONNX file to an opset below those that PyTorch's exporter writes."""

import re
from pathlib import Path
from typing import Any

from fsaf.errors import UserError, import_extra

LOWEST = 13
"""Lowest opset: from there on quantised weights have a scale for each channel."""
LOWEST_TRACED = 18
"""Lowest opset that PyTorch's exporter writes."""
LOWEST_CONVERTED = 15
"""Lowest opset that onnx converts all our operators to."""
NEEDLESS = ("noop_with_empty_axes", "allowzero")
"""Attributes of later opsets about axes and sides that are empty, as ours never are. onnx leaves them in."""


def lower_opset(path: Path, opset: int) -> None:
    """Rewrite the ONNX file ``path``, of a higher opset, for this one; names and metadata stay.

    Raises UserError, naming it, if an operator has no counterpart there.
    """
    onnx = import_extra("onnx")
    before = onnx.load(path)
    for node in before.graph.node:
        kept = [x for x in node.attribute if x.name not in NEEDLESS]
        del node.attribute[:]
        node.attribute.extend(kept)
    try:
        after = onnx.version_converter.convert_version(before, max(opset, LOWEST_CONVERTED))
    except RuntimeError as error:
        raise _refusal(opset, str(error)) from error
    if opset < LOWEST_CONVERTED:
        _spell_out_shapes(onnx, after.graph)
        _check_nodes(onnx, after.graph, opset)
        after.opset_import[0].version = opset
    after.producer_name, after.producer_version = before.producer_name, before.producer_version
    # The lowest version of the format too, for programs as old as the opset.
    after.ir_version = onnx.helper.find_min_ir_version_for(after.opset_import)
    onnx.save(after, path)


def _spell_out_shapes(onnx: Any, graph: Any) -> None:
    """Replace each ``Shape`` of some dimensions, which opset 15 brought, by ``Shape`` and ``Slice``."""
    nodes = []
    for node in graph.node:
        given = {x.name: x.i for x in node.attribute}
        nodes.append(node)
        if node.op_type != "Shape" or not given:
            continue
        output, whole = node.output[0], f"{node.output[0]}_whole"
        nodes[-1] = onnx.helper.make_node("Shape", list(node.input), [whole], name=node.name)
        ends = {"starts": given.get("start", 0), "ends": given.get("end", 2**31 - 1)}
        for name, value in ends.items():
            number = onnx.helper.make_tensor(f"{whole}_{name}", onnx.TensorProto.INT64, [1], [value])
            graph.initializer.append(number)
        names = [whole, *(f"{whole}_{name}" for name in ends)]
        nodes.append(onnx.helper.make_node("Slice", names, [output], name=whole))
    del graph.node[:]
    graph.node.extend(nodes)


def _check_nodes(onnx: Any, graph: Any, opset: int) -> None:
    """Raise UserError, naming it, if an operator is not there at ``opset``, or lacks an attribute."""
    for node in graph.node:
        try:
            known = onnx.defs.get_schema(node.op_type, opset, node.domain).attributes
        except onnx.defs.SchemaError as error:
            raise _refusal(opset, f"for {node.op_type}") from error
        if not {x.name for x in node.attribute} <= set(known):
            raise _refusal(opset, f"for {node.op_type}")


def _refusal(opset: int, text: str) -> UserError:
    missing = re.search(r"(?:for|Version of) (\w+)", text)
    if missing:
        return UserError(f"opset {opset}: has no counterpart of {missing[1]}; give a higher --opset")
    return UserError(f"opset {opset}: onnx cannot convert the graph ({text.strip()[-200:]})")
