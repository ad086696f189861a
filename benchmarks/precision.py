"""Accuracy in each precision: one recipe in fp32, bf16, and fp16 with a static and a dynamic loss scale.

    python benchmarks/precision.py [--recipe digits_lite0] [--runs fp32 fp16-dynamic ...] [--seeds 0 1 ...]
        [--out FOLDER] [--key.sub value ...]

Prints AP and AP50 of each run, the difference from fp32's, and the steps that fp16 skipped; writes
``results.json``. Runs that are in the folder already are not repeated.

A CPU without fp16 arithmetic takes ten times as long for a convolution in fp16. There convolutions take
their fp16 operands, compute in float32 and round the result to fp16, forward and backward, which is what the
matrix units of GPUs and NPUs do: rounding, overflow and underflow are fp16's. Every other operator runs in
fp16 as it is, and the step is the product's own: autocast, loss scale, skipped steps.
"""

import contextlib
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from variants import parse, run_all, show

from fsaf.device import is_accelerator, resolve_device
from fsaf.recipe import load_recipe

RUNS = {
    "fp32": ["--train.precision=fp32"],
    "bf16": ["--train.precision=bf16"],
    "fp16-static-32": ["--train.precision=fp16", "--train.loss_scale=32"],
    "fp16-dynamic": ["--train.precision=fp16", "--train.loss_scale=dynamic"],
}
CONVOLUTIONS = {torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default}


class MatrixUnit(TorchDispatchMode):
    """Convolutions of fp16 operands, accumulated in float32 and rounded to fp16."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in CONVOLUTIONS or args[0].dtype is not torch.float16:
            return func(*args, **kwargs)

        def cast(dtype: torch.dtype) -> Any:
            return lambda x: x.to(dtype) if isinstance(x, torch.Tensor) else x

        result = func(*tree_map(cast(torch.float32), args), **tree_map(cast(torch.float32), kwargs))
        return tree_map(cast(torch.float16), result)


def main() -> None:
    args, overrides = parse(__doc__, list(RUNS), "runs/precision")
    emulate = not is_accelerator(resolve_device(load_recipe(args.recipe, overrides).device))

    def around(name: str) -> contextlib.AbstractContextManager[Any]:
        return MatrixUnit() if emulate and name.startswith("fp16") else contextlib.nullcontext()

    table = run_all(args, overrides, RUNS, around)
    how = ", fp16 convolutions in float32 arithmetic" if emulate else ""
    print(f"\n{args.recipe}, seeds {args.seeds}, torch {torch.__version__}{how}")
    show(
        table,
        "fp32",
        lambda row: f"{row['skipped_steps']:>7} {row['loss_scale']:>10g}",
        "skipped loss scale",
    )


if __name__ == "__main__":
    main()
