"""Ascend's own front end on the training step: torchair's conversion of PyTorch graphs to GE graphs.

    pip download --no-deps torch-npu
    python tools/npu_graph.py torch_npu-*.whl [--backbone resnet50.tv_in1k] [--precision bf16]

torchair is the graph compiler's Python half. It converts each graph that torch.compile makes, operator by
operator, into Ascend IR (GE), which CANN then compiles. Here its native modules, and torch_npu itself, are
replaced by empty ones, so all up to the GE graph is Ascend's code and nothing after it runs: an operator
that the converters refuse fails here as it would there. What the kernels compute is not checked.
"""

import argparse
import importlib.abc
import importlib.machinery
import sys
import tempfile
import types
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from npu_operators import example_batch

from fsaf.config import ModelConfig, ObjectiveConfig, TrainConfig
from fsaf.model.detector import FSAF
from fsaf.training.precision import Precision
from fsaf.training.step import ForwardLoss

PACKAGE = "torch_npu/dynamo/torchair/"
NATIVE = (
    "torch_npu",
    *(f"torchair.core.{name}" for name in ("_torchair", "_npu_graph_executor", "_npu_utils")),
    "torchair.core._abi_compat_ge_apis",
)


class Empty(types.ModuleType):
    """A module in which every name exists and does nothing."""

    __path__: list[str] = []  # noqa: RUF012  a package, as the import system asks

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value: Any = MagicMock(name=f"{self.__name__}.{name}")
        if name.endswith(("Base", "Graph")):  # torchair derives classes from these
            value = type(name, (), {"__init__": lambda *_: None, "load": lambda *_: None})
        setattr(self, name, value)
        return value


class EmptyModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports ``NATIVE`` and what is under them as ``Empty``."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if any(name == root or name.startswith(root + ".") for root in NATIVE):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def load_torchair(wheel: Path, folder: Path) -> Any:
    """Import torchair out of a torch-npu wheel."""
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder, [name for name in file.namelist() if name.startswith(PACKAGE)])
    sys.path.insert(0, str(folder / PACKAGE).rsplit("/torchair", 1)[0])
    sys.meta_path.insert(0, EmptyModules())
    warnings.simplefilter("ignore")  # each converter of torch_npu's own operators says that it is missing
    import torchair
    import torchair.npu_fx_compiler as compiler
    from torch_npu.utils import _error_code

    _error_code.graph_error = str
    # Not torch 2.15's, which no longer counts operator.getitem.
    compiler.is_builtin_callable = lambda target: isinstance(target, types.BuiltinFunctionType)
    return torchair


def main() -> None:
    """Convert forward pass, objective and backward pass, and print what they became."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("wheel", type=Path, help="torch_npu-*.whl")
    parser.add_argument("--backbone", default="test_resnet", help="timm's name")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torchair = load_torchair(args.wheel, Path(folder))
        import torchair.npu_fx_compiler as compiler

        made: list[tuple[int, Counter[str]]] = []
        convert = compiler._NpuGraphConverter.run

        def noting(self: Any, *inputs: Any, **options: Any) -> Any:
            graph = convert(self, *inputs, **options)
            nodes = sum(node.op == "call_function" for node in self.module.graph.nodes)
            made.append((nodes, Counter(op.type for op in graph.graph.op)))
            return graph

        compiler._NpuGraphConverter.run = noting
        config = torchair.CompilerConfig()
        config.debug.run_eagerly = True  # after the conversion, PyTorch runs the graph itself
        config.experimental_config.pattern_fusion_pass = False  # fuses operators of torch_npu
        model = ModelConfig(backbone=args.backbone, channels=64, norm="group", frozen_stages=1)
        precision = Precision(TrainConfig(precision=args.precision), torch.device("cpu"))
        forward_loss = ForwardLoss(FSAF(model, 4).train(), ObjectiveConfig(), precision)
        forward_loss.compile(
            backend=torchair.get_npu_backend(compiler_config=config), fullgraph=True, dynamic=False
        )
        forward_loss(*example_batch()).loss.backward()
    for title, (nodes, kinds) in zip(("forward and objective", "backward"), made, strict=True):
        most = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(6))
        print(
            f"{title}: {nodes} operators -> {kinds.total()} GE operators of {len(kinds)} kinds ({most}, ...)"
        )


if __name__ == "__main__":
    main()
