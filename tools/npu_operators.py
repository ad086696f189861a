"""Which operators of the training step and of inference an Ascend NPU has, by torch-npu's own tables.

    pip download --no-deps torch-npu
    python tools/npu_operators.py torch_npu-*.whl            # the table, operator by operator
    python tools/npu_operators.py torch_npu-*.whl --write    # and keep the names in tests/npu

The wheel cannot be imported without Ascend's CANN libraries, but it carries ``npu_native_functions*.yaml``,
from which its kernels are registered, and the converters of its graph compiler (torchair) as Python source,
some of which only raise. The tests use the kept names and need no wheel.
"""

import argparse
import ast
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import yaml

from fsaf.config import ModelConfig, ObjectiveConfig, OptimConfig, PredictConfig, TrainConfig
from fsaf.data.batch import Boxes, pad_boxes
from fsaf.detection.nms import nms_by_rounds
from fsaf.detection.postprocess import postprocess
from fsaf.model.detector import FSAF
from fsaf.testing import Recorder
from fsaf.training.optim import MovingAverage, make_optimizer
from fsaf.training.precision import Precision
from fsaf.training.step import ForwardLoss

KEPT = Path(__file__).resolve().parents[1] / "tests" / "npu" / "npu_operators.json"
"""Names and the version of the wheel that they come from."""
CONVERTERS = "/_ge_concrete_graph/ge_converter/aten/"

HOST = ("profiler.",)
"""Operators that run on the host whatever the device."""


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What one version of torch-npu has. Names as ``aten.add.Tensor``."""

    version: str
    kernels: frozenset[str]
    """Operators with a kernel for NPUs."""
    converters: frozenset[str]
    """Operators that the graph compiler, torchair, converts by name; it decomposes or generates others."""


def kept_tables() -> Tables:
    """The tables that the tests go by."""
    content = json.loads(KEPT.read_text(encoding="utf-8"))
    kernels, converters = frozenset(content["kernels"]), frozenset(content["converters"])
    return Tables(version=content["torch_npu"], kernels=kernels, converters=converters)


def how_npu_runs(name: str, tables: Tables) -> str | None:
    """How an NPU runs the operator ``name`` (``aten.add.Tensor``) outside its graph compiler.

    ``kernel``: torch-npu has one. ``out form``: it has one that writes into a given tensor, and PyTorch makes
    the operator of that. ``composite``: PyTorch makes it of other operators, on any device. ``host``: it does
    not concern the device. None: not at all.
    """
    if name.startswith(HOST):
        return "host"
    if name in tables.kernels:
        return "kernel"
    namespace, operator, overload = name.split(".")
    qualified = f"{namespace}::{operator}" + ("" if overload == "default" else f".{overload}")
    for key in ("CompositeImplicitAutograd", "CompositeExplicitAutograd"):
        if torch._C._dispatch_has_kernel_for_dispatch_key(qualified, key):
            return "composite"
    out = f"{namespace}.{operator}." + ("out" if overload == "default" else f"{overload}_out")
    key = "CompositeExplicitAutogradNonFunctional"
    if out in tables.kernels and torch._C._dispatch_has_kernel_for_dispatch_key(qualified, key):
        return "out form"
    return None


def read_wheel(path: Path) -> Tables:
    """The tables inside a torch-npu wheel. Names are PyTorch's, ``aten.add.Tensor``."""
    kernels: set[str] = set()
    converters: set[str] = set()
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            if re.fullmatch(r".*/npu_native_functions.*\.yaml", name):
                kernels |= _kernels(yaml.safe_load(wheel.read(name)))
            elif CONVERTERS in name and name.endswith(".py"):
                converters |= _converters(ast.parse(wheel.read(name)))
    version = path.name.split("-")[1]
    return Tables(version=version, kernels=frozenset(kernels), converters=frozenset(converters))


def _kernels(content: dict[str, Any]) -> set[str]:
    """Names that one YAML file registers, from its ``supported`` list of PyTorch's operators."""
    entries = [e["func"] if isinstance(e, dict) else e for e in content.get("supported") or []]
    names = {entry.split("(")[0].strip().removeprefix("aten::") for entry in entries}
    return {f"aten.{name}" if "." in name else f"aten.{name}.default" for name in names}


def _converters(tree: ast.Module) -> set[str]:
    """Operators that one converter file converts, leaving out functions that do nothing but raise."""
    found = set()
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        body = [
            x for x in function.body if not (isinstance(x, ast.Expr) and isinstance(x.value, ast.Constant))
        ]
        if all(isinstance(statement, ast.Raise) for statement in body):
            continue
        for call in function.decorator_list:
            if isinstance(call, ast.Call) and "register_fx_node_ge_converter" in ast.unparse(call.func):
                found.add(ast.unparse(call.args[0]).removeprefix("torch.ops."))
    return found


def example_batch() -> tuple[torch.Tensor, Boxes]:
    """Two images of 128 x 192 pixels; the first has one box, the second none."""
    xyxy = [torch.tensor([[20.0, 30.0, 90.0, 100.0]]), torch.zeros(0, 4)]
    labels = [torch.tensor([1]), torch.zeros(0, dtype=torch.int64)]
    crowd = [torch.zeros(1, dtype=torch.bool), torch.zeros(0, dtype=torch.bool)]
    boxes, _ = pad_boxes(xyxy, labels, crowd, [(128, 192), (100, 190)], 8)
    return torch.zeros(2, 3, 128, 192, dtype=torch.uint8), boxes


def recorded_step(model: ModelConfig, precision: Any, optimizer: Any) -> dict[str, int]:
    """Operators of a whole training step, the second of a run, and how often each is run."""
    network = FSAF(model, 4).to(memory_format=torch.channels_last).train()
    settings = Precision(TrainConfig(precision=precision), torch.device("cpu"))
    forward_loss = ForwardLoss(network, ObjectiveConfig(), settings)
    with patch("fsaf.training.optim.fused_step_can_be_skipped", return_value=False):  # as on an NPU
        update = make_optimizer(network, OptimConfig(name=optimizer))
    average = MovingAverage(network, 0.9)
    images, boxes = example_batch()
    for _ in range(2):
        with Recorder() as recorder:
            terms = forward_loss(images, boxes)
            settings.backward(terms.loss)
            settings.step(update, network.parameters(), 10.0)
            average.update(network)
    return recorder.operators()


def recorded_inference(model: ModelConfig) -> dict[str, int]:
    """Operators from uint8 images to detections, with the suppression for devices without a kernel of it."""
    network = FSAF(model, 4).eval()
    images, boxes = example_batch()
    candidates = torch.rand(2, 9, 4), torch.rand(2, 9)
    with torch.no_grad(), Recorder() as recorder:
        postprocess(network(images, boxes.sizes), boxes.sizes, PredictConfig())
        nms_by_rounds(*candidates, 0.5, 3)
    return {name: count for name, count in recorder.operators().items() if name != "fsaf.nms.default"}


def recorded() -> dict[str, dict[str, int]]:
    """What the table is about: steps of the recipes' kinds of network, and inference."""
    resnet = ModelConfig(backbone="test_resnet", channels=16, convs=1, frozen_stages=1)
    lite = ModelConfig(backbone="tf_efficientnet_lite0", channels=64, convs=1, norm="group", frozen_stages=1)
    return {
        "training step, ResNet, SGD, fp16": recorded_step(resnet, "fp16", "sgd"),
        "training step, EfficientNet-lite, AdamW, bf16": recorded_step(lite, "bf16", "adamw"),
        "inference, ResNet": recorded_inference(resnet),
    }


def print_missing(tables: Tables) -> None:
    """Print the recorded operators that a version of torch-npu has no kernel for."""
    for title, operators in recorded().items():
        missing = [name for name in operators if how_npu_runs(name, tables) is None]
        print(f"torch-npu {tables.version}, {title}: {', '.join(missing) or 'nothing missing'}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "wheel", type=Path, nargs="+", help="torch_npu-*.whl; of several only what is missing"
    )
    parser.add_argument("--write", action="store_true", help=f"keep the names in {KEPT.name}")
    args = parser.parse_args()
    if len(args.wheel) > 1:
        for path in args.wheel:
            print_missing(read_wheel(path))
        return
    tables = read_wheel(args.wheel[0])
    print(f"torch-npu {tables.version}: {len(tables.kernels)} operators with NPU kernels, ", end="")
    print(f"{len(tables.converters)} with a converter of its graph compiler; PyTorch {torch.__version__}")
    for title, operators in recorded().items():
        print(f"\n{title}: {len(operators)} operators, {sum(operators.values())} calls\n")
        print(f"{'operator':56}{'calls':>6}  {'eager':10} graph")
        for name, count in sorted(operators.items()):
            graph = "converter" if name in tables.converters else "-"
            print(f"{name:56}{count:6}  {how_npu_runs(name, tables) or 'MISSING':10} {graph}")
    if args.write:
        content = {key: sorted(getattr(tables, key)) for key in ("kernels", "converters")}
        KEPT.write_text(json.dumps({"torch_npu": tables.version, **content}, indent=0) + "\n")


if __name__ == "__main__":
    main()
