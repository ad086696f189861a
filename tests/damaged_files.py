"""Open damaged checkpoints and ONNX files, one after the other, in a process of its own.

``python damaged_files.py FILE COUNT SEED`` damages FILE at random COUNT times, opens each and predicts with
it. It prints JSON: how many were read, refused in one message or ended otherwise, and the memory it took.
"""

import contextlib
import copy
import json
import resource
import struct
import sys
import tempfile
import traceback
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fsaf
from damage import VALUES, damage_bytes, damage_json

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
OTHERS: list[Any] = [torch.ones(2), torch.full((3,), float("nan")), {1, 2}, b"x", (1, 2)]
"""Values that JSON has not."""


def damage_pickle(path: Path, rng: np.random.Generator) -> None:
    """Damage one record of a zip archive, with the right checksums."""
    with zipfile.ZipFile(path) as file:
        records = {each.filename: file.read(each) for each in file.infolist()}
    pickles = [name for name in records if name.endswith("data.pkl")]
    name = pickles[0] if rng.random() < 0.8 else list(records)[rng.integers(len(records))]
    if records[name]:
        records[name] = damage_bytes(records[name], rng)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        for each, data in records.items():
            file.writestr(each, data)


def damage_values(path: Path, rng: np.random.Generator) -> None:
    """Replace, drop or move a value of a checkpoint."""
    content = torch.load(path, weights_only=True)
    at: Any = content
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            break
        key = keys[rng.integers(len(keys))]
        if isinstance(at[key], (dict, list)) and at[key] and rng.random() < 0.85:
            at = at[key]
            continue
        choices = [*VALUES, *OTHERS]
        if rng.random() < 0.2:
            del at[key]
        elif isinstance(at[key], torch.Tensor) and rng.random() < 0.7:
            at[key] = damage_tensor(at[key], rng)
        else:
            at[key] = copy.copy(choices[rng.integers(len(choices))])
        break
    torch.save(content, path)


def damage_tensor(tensor: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Return a tensor with other values, another type, shape or memory."""
    shape = tuple(tensor.shape)
    return [
        lambda: tensor * float("nan"),
        lambda: tensor.to(torch.int8),
        lambda: tensor.to(torch.complex64),
        lambda: tensor.half(),
        lambda: tensor.reshape(-1),
        lambda: torch.zeros(1).expand(10**6, *shape[1:]),
        lambda: tensor.to_sparse(),
        lambda: tensor.float() * 1e38,
        lambda: torch.zeros(shape, device="meta"),
    ][rng.integers(9)]()


def damage_header(path: Path, rng: np.random.Generator) -> None:
    """Damage the header of a safetensors file: its values, or those of the JSON text in it."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    if rng.random() < 0.5:
        inner = json.loads(header["__metadata__"]["fsaf"])
        header["__metadata__"]["fsaf"] = json.dumps(damage_json(inner, rng))
    else:
        header = damage_json(header, rng)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def damage_graph(path: Path, rng: np.random.Generator) -> None:
    """Change the graph of an ONNX file: a node, an attribute, a constant, a shape, or its metadata."""
    import onnx

    model = onnx.load(path)
    graph = model.graph
    node = graph.node[rng.integers(len(graph.node))]
    kind = rng.integers(7)
    if kind == 0:
        graph.node.remove(node)
    elif kind == 1 and node.input:
        names = [name for each in graph.node for name in each.output]
        node.input[rng.integers(len(node.input))] = names[rng.integers(len(names))]
    elif kind == 2:
        node.op_type = ["Add", "Shape", "Loop", "Expand", "Nothing", "TopK", "Conv"][rng.integers(7)]
    elif kind == 3 and node.attribute:
        attribute = node.attribute[rng.integers(len(node.attribute))]
        attribute.i = int(rng.choice([-1, 0, 10**9, 2**62]))
        if attribute.ints:
            attribute.ints[rng.integers(len(attribute.ints))] = int(rng.choice([-1, 0, 7, 10**9]))
    elif kind == 4:
        constant = graph.initializer[rng.integers(len(graph.initializer))]
        if constant.raw_data:
            constant.raw_data = damage_bytes(constant.raw_data, rng)
        if constant.dims:
            constant.dims[0] = int(rng.choice([0, 1, -1, 10**9]))
    elif kind == 5:
        value = [*graph.input, *graph.output][rng.integers(len(graph.input) + len(graph.output))]
        dims = value.type.tensor_type.shape.dim
        dims[rng.integers(len(dims))].dim_value = int(rng.choice([0, 1, -1, 64, 10**9]))
    else:
        entry = model.metadata_props[rng.integers(len(model.metadata_props))]
        text = entry.value.encode() or b"x"
        entry.value = damage_bytes(text, rng).decode(errors="replace")
    onnx.save(model, path)


def damage_whole(path: Path, rng: np.random.Generator) -> None:
    """Damage any bytes of a file."""
    path.write_bytes(damage_bytes(path.read_bytes(), rng))


DAMAGES = {
    ".pt": [damage_whole, damage_pickle, damage_values, damage_values],
    ".safetensors": [damage_whole, damage_header, damage_header],
    ".onnx": [damage_whole, damage_graph, damage_graph],
}


def peak() -> float:
    """Return the memory that this process took at most, in MB."""
    with contextlib.suppress(OSError):  # Linux; the other figure includes the process that started this one
        text = Path("/proc/self/status").read_text()
        return int(text.partition("VmHWM:")[2].split()[0]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def main(source: Path, count: int, seed: int) -> None:
    outcomes: Counter[str] = Counter()
    faults = []
    fsaf.load(source, "cpu").predict(PICTURE, score_threshold=0.05)
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"damaged{source.suffix}"
        for number in range(seed, seed + count):
            print(number, file=sys.stderr, flush=True)  # which one, should the process die
            rng = np.random.default_rng(number)
            path.write_bytes(source.read_bytes())
            DAMAGES[source.suffix][rng.integers(len(DAMAGES[source.suffix]))](path, rng)
            try:
                json.dumps(
                    fsaf.load(path, "cpu").predict(PICTURE, score_threshold=0.05).to_dict(), allow_nan=False
                )
                outcomes["read"] += 1
            except fsaf.UserError as error:
                lines = str(error).splitlines()
                good = len(lines) == 1 and lines[0].startswith(str(path)) and len(lines[0]) < 2000
                outcomes["refused" if good else "badly refused"] += 1
                faults += [] if good else [f"{number}: {str(error)[:300]}"]
            except Exception:
                outcomes["traceback"] += 1
                faults.append(f"{number}: {traceback.format_exc()[-600:]}")
    print(json.dumps({"outcomes": outcomes, "memory_mb": peak() - before, "faults": faults}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
