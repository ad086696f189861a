"""Operators that Ascend NPUs have, as torch-npu's own tables say; written by ``tools/npu_operators.py``."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

KEPT = Path(__file__).with_suffix(".json")
"""Names and the version of the wheel that they come from."""
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
    """The tables that come with this package."""
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
