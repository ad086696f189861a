"""Only ``fsaf/device`` knows devices by name. All other code follows the device of its tensors."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import fsaf

SOURCE = Path(fsaf.__file__).parent
ACCELERATORS = {"cuda", "npu", "xpu", "mps", "hpu", "nccl", "hccl", "xccl"}

ALLOWED = {
    "device/choice.py": {*ACCELERATORS, "cpu"},
    "device/placement.py": {"cuda", "npu", "cpu"},
    "device/programs.py": {"cuda", "npu", "xpu"},
    "device/providers.py": {"cuda", "npu", "xpu", "cpu"},
    "device/state.py": {"mps", "cpu"},
    # Files are read to the CPU. Tensors on other devices, such as meta, have no values to check.
    "checkpoints/memory.py": {"cpu"},
    # Results leave the device to be written, drawn or logged.
    "detection/draw.py": {".cpu"},
    "scoring/evaluate.py": {".cpu"},
    "detection/pixels.py": {".cpu"},
    "detection/postprocess.py": {".cpu"},
    "training/window.py": {".cpu"},
    # onnxruntime takes arrays; the exporter traces on the CPU.
    "exporting/onnx.py": {".cpu"},
    "exporting/check.py": {"cpu"},
    "exporting/int8.py": {"cpu"},
    "exporting/reduced.py": {"cpu"},
    "detection/detections_file.py": {".cpu"},
    "detection/raw_file.py": {".cpu"},
    # Texts of options; the CPU is listed beside the accelerators; processes use gloo on it too.
    "cli/export.py": {"cpu"},
    "cli/info.py": {"cpu"},
    "cli/machine.py": {"cpu"},
    "processes/group.py": {"cpu"},
    "processes/join.py": {"cpu"},
    # This file detects such calls.
    "testing.py": {"cpu", ".cpu"},
}
"""Device names that a file may use, and why. Every file may read with ``map_location="cpu"``."""


def found(tree: ast.AST) -> Iterator[str]:
    """Yield names of devices, as strings (``cuda``, ``cuda:0``) and as attributes (``.cuda``)."""
    names = {*ACCELERATORS, "cpu"}
    free = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "map_location"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in free:
            if node.value.split(":")[0] in names:
                yield node.value.split(":")[0]
        elif isinstance(node, ast.Attribute) and node.attr.removeprefix("is_") in names:
            yield f".{node.attr}"


FILES = sorted(path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py"))


@pytest.mark.parametrize("name", FILES)
def test_no_device_by_name(name: str) -> None:
    said = set(found(ast.parse((SOURCE / name).read_text(encoding="utf-8"))))
    assert said <= ALLOWED.get(name, set()), f"{name} names devices; let the tensors say where they are"


def test_network_and_objective_have_no_exception() -> None:
    assert not [name for name in ALLOWED if name.startswith(("model/", "objective/", "data/"))]
    assert {name.split("/")[0] for name in FILES} >= {"model", "objective", "training", "detection"}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x.cuda()", [".cuda"]),
        ("x.npu()", [".npu"]),
        ("if x.is_cuda: pass", [".is_cuda"]),
        ("torch.cuda.synchronize()", [".cuda"]),
        ("x.to('npu:0')", ["npu"]),
        ("torch.zeros(3, device='cpu')", ["cpu"]),
        ("x.cpu()", [".cpu"]),
        ("torch.load(path, map_location='cpu')", []),
        ("'on a cuda device'", []),
    ],
)
def test_the_search_finds(code: str, said: list[str]) -> None:
    assert list(found(ast.parse(code))) == said
