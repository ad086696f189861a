"""Runs fsaf's own commands on ``--device npu`` and on the CPU; prints what came out as JSON.

Started by ``test_npu.py`` in a process where importing PyTorch has registered the simulated device.
Arguments: a recipe, and a folder for the runs.
"""

import contextlib
import io
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from fsaf import load
from fsaf.checkpoints.format import load_checkpoint
from fsaf.cli import main
from fsaf.config import OptimConfig, TrainConfig
from fsaf.training.optim import make_optimizer
from fsaf.training.precision import Precision

simulated_npu: Any = sys.modules["simulated_npu"]  # PyTorch has loaded it

RUNS: dict[str, list[str]] = {
    "fp32": ["--optim.name=sgd"],
    "bf16": ["--train.precision=bf16"],
    "static": ["--train.precision=fp16", "--train.loss_scale=32"],
    "dynamic": ["--train.precision=fp16", "--train.loss_scale=dynamic", "--train.ema=0.9"],
}


def fsaf(*arguments: object) -> str:
    """Output of a command line, which must succeed."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        status = main([str(argument) for argument in arguments])
    if status:
        raise SystemExit(f"fsaf {arguments[0]} on {arguments[1:]} ended with {status}")
    return text.getvalue()


def train(recipe: Path, out: Path, device: str, *options: str, steps: int = 3) -> list[dict[str, Any]]:
    """The records of a run."""
    stop = (f"--train.max_steps={steps}", "--train.evaluate_every=0")
    fsaf("train", recipe, f"--out={out}", f"--device={device}", *stop, *options)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def each_step(recipe: Path, folder: Path, *options: str) -> dict[str, float]:
    """What one training step issues, from the difference of runs of 1 and of 3 steps."""
    found: list[Counter[str]] = []
    for steps in (1, 3):
        with simulated_npu.counting() as counts:
            once = ("--data.batch_size=1", "--log.every=100")
            train(recipe, folder / str(steps), "npu", *once, *options, steps=steps)
        found.append(counts)
    return {name: (found[1][name] - found[0][name]) / 2 for name in found[1]}


def overflow() -> dict[str, float]:
    """A step whose gradients overflow, under a dynamic loss scale."""
    device = torch.device("npu")
    torch.manual_seed(0)
    model = torch.nn.Conv2d(1, 1, 3).to(device)
    precision = Precision(TrainConfig(precision="fp16", loss_scale="dynamic"), device)
    optimizer = make_optimizer(model, OptimConfig(name="adamw"))  # type: ignore[arg-type]
    before, scale = model.weight.detach().cpu(), precision.loss_scale
    with precision.autocast():
        result = model(torch.ones(1, 1, 8, 8, device=device))
    precision.backward(result.float().sum() * 1e9)
    precision.step(optimizer, model.parameters(), 10.0)
    return {
        "half": result.dtype is torch.float16,
        "moved": (model.weight.detach().cpu() - before).abs().max().item(),
        "backed_off": precision.loss_scale / scale,
    }


def noticed() -> dict[str, float | str]:
    """What the simulation says of two violations."""
    x = torch.ones(2, 3, device="npu")
    with simulated_npu.counting() as counts:
        x.sum().item()
        x.cpu()
    try:
        torch.maximum(x, torch.ones(2, 3))
    except RuntimeError as error:
        return dict(counts) | {"two devices": str(error)}
    return dict(counts)


def run(recipe: Path, folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {"info": json.loads(fsaf("info", "--json")), "runs": {}, "evaluations": {}}
    for device in ("npu", "cpu"):
        for name, options in RUNS.items():
            facts["runs"][f"{name} {device}"] = train(recipe, folder / name / device, device, *options)
    # A checkpoint of one device is opened, and gone on from, on the other.
    for device, other in (("npu", "cpu"), ("cpu", "npu")):
        out = folder / "fp32" / device
        checkpoint = out / "checkpoints" / "last.pt"
        for at in ("npu", "cpu"):
            low = "--predict.score_threshold=0.001"
            fsaf("evaluate", checkpoint, f"--out={folder / 'of' / device / at}", f"--device={at}", low)
            facts["evaluations"][f"{device} on {at}"] = json.loads(
                (folder / "of" / device / at / "predictions.json").read_text()
            )
        resumed = train(recipe, out, other, *RUNS["fp32"], "--resume=true", steps=4)
        facts["runs"][f"resumed {device}"] = resumed[-1:]
    last = folder / "dynamic" / "npu" / "checkpoints" / "last.pt"
    facts["opened_on"] = str(load(last).model.mean.device)
    facts["read_on"] = sorted({str(value.device) for value in load_checkpoint(last)["model"].values()})
    facts["overflow"] = overflow()
    facts["noticed"] = noticed()
    facts["each_step"] = {
        name: each_step(recipe, folder / f"count {name}", *RUNS[name]) for name in ("fp32", "dynamic")
    }
    return facts


if __name__ == "__main__":
    result = run(Path(sys.argv[1]), Path(sys.argv[2]))
    Path(sys.argv[2], "facts.json").write_text(json.dumps(result))
