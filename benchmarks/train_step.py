"""The training step beside MMDetection's FSAF (same weights) and torchvision's FCOS and RetinaNet.

    python benchmarks/train_step.py                               # CPU: fp32, 2 images of 800 x 1216
    python benchmarks/train_step.py --device cuda --batch 16 32   # bf16, compiled, one graph a batch shape

Images and boxes are random and lie in memory. A step is forward pass, loss, backward pass, clipping and
update. The losses of the first step are compared with MMDetection's before anything is timed. Limits: the
step's arithmetic over the machine's matrix rate, and what its convolutions read and write over its copy rate.
--workers adds training from JPEG files, with the loader of ``fsaf train``.
"""

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peers
import timing
import torch
from dataloader import write_pictures
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fsaf.config import Config
from fsaf.data.batch import Boxes
from fsaf.data.readers.coco import read_coco
from fsaf.data.samples import Images
from fsaf.data.workers import make_loader
from fsaf.device import is_accelerator
from fsaf.measuring.flops import step_flops
from fsaf.measuring.inputs import random_batch, random_classes
from fsaf.measuring.machine import copy_rate, matrix_rate
from fsaf.measuring.timing import wait
from fsaf.model.detector import FSAF
from fsaf.objective.objective import objective
from fsaf.recipe import load_recipe
from fsaf.training.graphs import open_tools
from fsaf.training.precision import TYPES
from fsaf.training.run import Run
from fsaf.training.session import make_step
from fsaf.training.start import start_run

CLASSES, BOXES, RATE = 80, 20, 1e-6


class ConvolutionBytes(TorchDispatchMode):
    """Counts what convolutions read and write if each tensor passes the memory once."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.total = size, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if "convolution" in func.__name__:
            given = [*args, *(result if isinstance(result, tuple) else (result,))]
            self.total += sum(x.numel() * self.size for x in given if isinstance(x, Tensor))
        return result


def step_bytes(config: Config, batch: int, shape: tuple[int, int], size: int) -> int:
    """Bytes that the convolutions of a step move, at ``size`` bytes a value."""
    with torch.device("meta"), ConvolutionBytes(size) as counter:
        outputs = FSAF(config.model, CLASSES).train()(torch.empty(batch, 3, *shape, dtype=torch.uint8))
        torch.stack([x.sum() for x in outputs.tensors()]).sum().backward()
    return counter.total


def start(config: Config, checkpoint: Path, device: torch.device) -> tuple[Run, Callable[..., Any]]:
    """A run of ours that starts from ``checkpoint``, and its step: images, boxes, rate."""
    with tempfile.TemporaryDirectory() as folder:
        run = start_run(replace(config, out=folder, init=str(checkpoint)), random_classes(CLASSES), device)
    run.model.train()
    return run, make_step(run, open_tools(config, device), print)


def same_losses(run: Run, theirs: peers.MMDetection, images: Tensor, boxes: Boxes) -> dict[str, Any]:
    """Compare the loss terms of one small batch in float32."""
    device = run.model.mean.device
    with torch.no_grad():
        terms = objective(
            run.model(images.to(device), boxes.to(device).sizes), boxes.to(device), run.config.objective
        )
    expected = theirs.losses(theirs.in_memory(images, boxes))
    theirs.model.zero_grad()
    return {
        name: timing.check(name, abs(float(a) / float(b) - 1), 1e-3)
        for name, a, b in (
            ("classification loss", expected["loss_cls"], terms.loss_cls_l.sum()),
            ("box loss", expected["loss_box"], terms.loss_box_l.sum()),
        )
    }


def memory(call: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes that ``call`` needs at once beside what lay in the device's memory before."""
    call()
    if not is_accelerator(device):
        return None
    module = torch.get_device_module(device)
    gc.collect()
    module.empty_cache()
    before = module.memory_allocated(device)
    module.reset_peak_memory_stats(device)
    call()
    wait(device)
    return module.max_memory_allocated(device) - before


def one_batch(
    args: argparse.Namespace, config: Config, folder: Path, device: torch.device, batch: int
) -> dict[str, Any]:
    """All contenders on batches of ``batch`` images."""
    shape = tuple(args.size)
    images, boxes = random_batch(batch, *shape, BOXES, CLASSES)
    run, step = start(config, folder / "ours.pt", device)
    ours_images, ours_boxes = images.to(device), boxes.to(device)
    figures: dict[str, Any] = {"batch": batch, "shape": args.size, "precision": args.precision}
    contenders: dict[str, Callable[[], Any]] = {"fsaf": lambda: step(ours_images, ours_boxes, RATE)}
    if peers.has_mmdetection():
        theirs = peers.MMDetection(folder / "theirs.pth", "resnet50", str(device), (1333, 800))
        figures["check"] = same_losses(run, theirs, *random_batch(1, *shape, BOXES, CLASSES, seed=1))
        precision = args.precision if is_accelerator(device) else "fp32"  # its AMP refuses a CPU
        their_batch, their_step = theirs.in_memory(images, boxes), theirs.trainer(precision)
        contenders[f"MMDetection FSAF {precision}"] = lambda: their_step(their_batch)
    else:
        print(peers.MISSING)
    for name in () if args.no_torchvision else peers.TORCHVISION:
        model = peers.Torchvision(name, str(device), shape)
        inputs, one = model.in_memory(ours_images, boxes), model.trainer(args.precision)
        contenders[f"torchvision {name}"] = lambda inputs=inputs, one=one: one(*inputs)
    for _ in range(4 if config.train.graphs else 0):
        contenders["fsaf"]()  # compiled and captured before anything is measured
    figures["memory_bytes"] = {name: memory(call, device) for name, call in contenders.items()}
    times = timing.alternate(contenders, args.repeat, device)
    figures["seconds"] = timing.compare(f"step of {batch}", times, "fsaf", batch)
    median = figures["seconds"]["rows"]["fsaf"]["median"]
    dtype = TYPES[args.precision]
    rate, speed = matrix_rate(device, dtype), copy_rate(device)
    flops, moved = (
        step_flops(config, CLASSES, batch, shape)[1],
        step_bytes(config, batch, shape, dtype.itemsize),
    )
    figures["limits"] = {
        "flops": flops,
        "matrix_flops": rate,
        "arithmetic_seconds": flops / rate,
        "bytes": moved,
        "copy_bytes": speed,
        "copy_seconds": moved / speed,
        "utilisation": flops / rate / median,
    }
    print(
        f"limits: {flops / 1e9:,.0f} GFLOP at {rate / 1e12:.3g} TFLOP/s: {flops / rate * 1e3:.1f} ms "
        f"({flops / rate / median:.1%} of our step); {moved / 1e9:.2f} GB at {speed / 1e9:.3g} GB/s: "
        f"{moved / speed * 1e3:.1f} ms"
    )
    for name, count in figures["memory_bytes"].items():
        if count is not None:
            print(f"memory of a step, {name}: {count / 2**30:.2f} GiB")
    return figures


def from_files(
    config: Config, args: argparse.Namespace, folder: Path, device: torch.device
) -> dict[str, Any]:
    """Images a second of training from JPEG files, and of the same step on a batch in memory."""
    batch, steps = args.batch[0], 4 if args.quick else 30
    path, pictures = write_pictures(folder, 64 if args.quick else 512)
    records = read_coco(path, pictures)
    records = replace(records, images=records.images * -(-steps * batch * 2 // len(records.images)))
    # All files go to one shape, so that one graph is compiled.
    data = replace(config.data, shapes=[tuple(args.size)], workers=args.workers)
    _, step = start(config, folder / "ours.pt", device)
    loader, sampler = make_loader(
        Images(records, data, augment=True),
        batch,
        workers=args.workers,
        train=True,
        pin_memory=is_accelerator(device),
    )
    sampler.set_epoch(0)
    batches = iter(loader)

    def one() -> None:
        got = next(batches)
        step(got.images.to(device, non_blocking=True), got.boxes.to(device), RATE)

    for _ in range(6):
        one()
    wait(device)
    begun = time.perf_counter()
    for _ in range(steps):
        one()
    wait(device)
    speed = steps * batch / (time.perf_counter() - begun)
    print(f"\nfrom JPEG files, {args.workers} workers: {speed:.1f} img/s")
    return {"batch": batch, "workers": args.workers, "images_per_second": speed}


def main() -> None:
    """Compare, then time, one batch size after the other."""
    parser = timing.arguments(__doc__ or "")
    parser.add_argument("--batch", type=int, nargs="+", help="images a step (2; 16 on an accelerator)")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="800 1216; 800 1344")
    parser.add_argument("--precision", choices=tuple(TYPES), help="fp32; bf16 on an accelerator")
    parser.add_argument(
        "--eager", action="store_true", help="neither compiled nor captured on an accelerator"
    )
    parser.add_argument("--no-torchvision", action="store_true", help="MMDetection only")
    parser.add_argument("--workers", type=int, help="also train from files with so many loader processes")
    args, device = timing.begin(parser)
    fast = is_accelerator(device)
    args.batch = args.batch or ([1] if args.quick else [16] if fast else [2])
    args.size = args.size or ([256, 320] if args.quick else [800, 1344] if fast else [800, 1216])
    args.precision = args.precision or ("bf16" if fast else "fp32")
    args.repeat = args.repeat or (1 if args.quick else 20 if fast else 3)
    graphs = str(fast and not args.eager and device.type == "cuda").lower()
    options = ["--model.weights=none", f"--train.precision={args.precision}", f"--train.graphs={graphs}"]
    options.append(f"--train.compile={str(fast and not args.eager).lower()}")
    config = load_recipe("fsaf_r50_fpn_1x_coco", options)
    figures: dict[str, Any] = {"batches": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("ours.pt", "theirs.pth"):
            peers.write_ours(folder / file, config)
        for batch in args.batch:
            figures["batches"].append(one_batch(args, config, folder, device, batch))
            gc.collect()
            if fast:
                torch.get_device_module(device).empty_cache()
        if args.workers:
            figures["from_files"] = from_files(config, args, folder, device)
    timing.finish(args, device, figures)


if __name__ == "__main__":
    main()
