"""Accuracy in each precision: one recipe in fp32, bf16, and fp16 with a static and a dynamic loss scale.

    python benchmarks/precision.py [--recipe digits_lite0] [--runs fp32 fp16-dynamic ...] [--seed 0]
        [--out FOLDER] [--key.sub value ...]

Prints AP and AP50 of each run, the difference from fp32's, and the steps that fp16 skipped; writes
``precision.json``. Runs that are in the folder already are not repeated.

A CPU without fp16 arithmetic takes ten times as long for a convolution in fp16. There (``--emulate``, on by
default on a CPU) convolutions take their fp16 operands, compute in float32 and round the result to fp16,
forward and backward, which is what the matrix units of GPUs and NPUs do: rounding, overflow and underflow are
fp16's. Every other operator runs in fp16 as it is, and the step is the product's own: autocast, loss scale,
skipped steps.
"""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from fsaf.data.digits import write_digits
from fsaf.device import is_accelerator, resolve_device
from fsaf.recipe import load_recipe
from fsaf.train.trainer import train

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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", default="digits_lite0")
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/precision"))
    parser.add_argument("--emulate", action=argparse.BooleanOptionalAction)
    args, overrides = parser.parse_known_args()
    base = load_recipe(args.recipe, overrides)
    emulate = not is_accelerator(resolve_device(base.device)) if args.emulate is None else args.emulate
    if args.recipe == "digits_lite0":
        overrides = [f"--data.root={write_digits(args.out / 'digits')}", *overrides]

    results: dict[str, dict[str, Any]] = {}
    for name in args.runs:
        out = args.out / f"{name}-seed{args.seed}"
        if not (out / "evaluation.json").is_file() or not (out / "seconds").is_file():
            options = [f"--out={out}", f"--train.seed={args.seed}", *RUNS[name], *overrides]
            start = time.perf_counter()
            fp16 = MatrixUnit() if emulate and name.startswith("fp16") else contextlib.nullcontext()
            with fp16:
                train(load_recipe(args.recipe, options))
            (out / "seconds").write_text(f"{time.perf_counter() - start:.0f}")
        metrics = json.loads((out / "evaluation.json").read_text())
        steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        steps = [step for step in steps if "loss" in step]
        results[name] = {
            "AP": metrics["AP"],
            "AP50": metrics["AP50"],
            "skipped_steps": sum(step["skipped_steps"] for step in steps),
            "last_loss_scale": steps[-1]["loss_scale"],
            "seconds": int((out / "seconds").read_text()),
        }
    reference = results.get("fp32", {}).get("AP")
    how = ", fp16 convolutions emulated" if emulate else ""
    print(f"\n{args.recipe}, seed {args.seed}, torch {torch.__version__}{how}")
    print(f"{'run':<16} {'AP':>6} {'AP50':>6} {'AP - fp32':>10} {'skipped':>8} {'scale':>8} {'seconds':>8}")
    for name, row in results.items():
        difference = f"{row['AP'] - reference:+.3f}" if reference is not None else "-"
        print(
            f"{name:<16} {row['AP']:>6.3f} {row['AP50']:>6.3f} {difference:>10} {row['skipped_steps']:>8}"
            f" {row['last_loss_scale']:>8g} {row['seconds']:>8}"
        )
    text = json.dumps({"command": sys.argv, "torch": torch.__version__, "runs": results}, indent=1)
    (args.out / "precision.json").write_text(text)


if __name__ == "__main__":
    main()
