"""fsaf's command line in this process, on the emulated NPU or on the CPU."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import yaml
from torch import multiprocessing

from fsaf.cli import main
from fsaf.recipe import find_recipe

COMMON = {
    "weights": "--model.weights=none",
    "size": "--data.short_side=64 --data.long_side=96 --data.shapes=[[64,96]]",
    "data": "--data.workers=0 --data.batch_size=2 --data.max_boxes=8",
    "length": "--log.every=1 --train.evaluate_every=0",
}


def fsaf_command(*words: object) -> str:
    """Run a command line of fsaf, which must succeed; return its output."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        status = main([str(word) for word in words])
    assert status == 0, f"fsaf {words[0]} ended with {status}"
    return text.getvalue()


class Trainer:
    """``fsaf train`` with small pictures, on the emulated NPU or on the CPU."""

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out = data, out

    def recipe(self, name: str) -> Path:
        """Return a shipped recipe in fp32, without COCO's paths, which the test's data does not have."""
        values = yaml.safe_load(find_recipe(name).read_text())
        values["data"] |= {
            "root": str(self.data),
            "train": {"annotations": "annotations/train.json", "images": "images/train"},
            "val": {"annotations": "annotations/val.json", "images": "images/val"},
        }
        values["train"]["precision"] = "fp32"  # unless an option says otherwise, on NPU and CPU alike
        path = self.out / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def __call__(
        self, device: str, *options: str, steps: int = 3, recipe: str = "lite0", out: str = ""
    ) -> list[dict[str, Any]]:
        """Return the records of the steps."""
        folder = self.out / (out or device)
        common = " ".join(COMMON.values()).split()
        fsaf_command(
            "train", self.recipe(recipe), f"--out={folder}", f"--device={device}",
            f"--train.max_steps={steps}", *common, *options,
        )  # fmt: skip
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, lines) if "loss" in record]

    def checkpoint(self, out: str) -> Path:
        return self.out / out / "checkpoints" / "last.pt"

    def tensors(self, out: str) -> list[torch.Tensor]:
        """Return every tensor of the last checkpoint: weights, average, momenta, step counts, loss scale."""
        content = torch.load(self.checkpoint(out), weights_only=True)
        del content["training"]["processes"]  # states of the random generators, and times
        del content["training"]["optimizer"]["param_groups"]  # a captured run's learning rate is a tensor
        leaves = torch.utils._pytree.tree_leaves(content)
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def collectives(rank: int, port: int, results: multiprocessing.SimpleQueue) -> None:
    """Run as one of two processes: put the results of some collective operations into ``results``."""
    torch.npu.set_device(rank)
    address = f"tcp://localhost:{port}"
    dist.init_process_group("cpu:gloo,npu:hccl", init_method=address, rank=rank, world_size=2)
    whole = torch.arange(5.0, device="npu") + rank
    dist.all_reduce(whole)
    counts = torch.full((3,), rank, dtype=torch.int64, device="npu")
    dist.broadcast(counts, 1)
    gathered = [torch.empty(2, device="npu") for _ in range(2)]
    dist.all_gather(gathered, torch.full((2,), float(rank), device="npu"))
    large = torch.full((3_000_000,), 1.0 + rank, dtype=torch.bfloat16, device="npu")
    dist.all_reduce(large, op=dist.ReduceOp.MAX)
    results.put(
        (whole.tolist(), counts.tolist(), [each.tolist() for each in gathered], large.float().min().item())
    )
    dist.barrier()
    dist.destroy_process_group()
