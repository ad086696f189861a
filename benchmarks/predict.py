"""Prediction from an image in memory to its boxes, suppression included, beside the peers.

    python benchmarks/predict.py                             # CPU: fp32, one image of 800 x 1216
    python benchmarks/predict.py --device cuda --batch 1 32  # bf16, plain and compiled, 800 x 1344

MMDetection's FSAF has the same weights, torchvision's FCOS and RetinaNet have random ones. The detections of
every contender of ours are compared with MMDetection's, or with those of ours in float32, before anything is
timed. On a CPU onnxruntime is a contender, and the small network of ``fsaf quickstart`` is timed, too.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peers
import timing
import torch
from torch import Tensor, nn

import fsaf
from fsaf.data.batch import Boxes
from fsaf.detection.detector import Detector, Result
from fsaf.detection.postprocess import Detections, postprocess
from fsaf.device import is_accelerator
from fsaf.measuring.inputs import random_classes
from fsaf.model.convolution import use_winograd
from fsaf.model.detector import FSAF
from fsaf.recipe import load_recipe

CLASSES = 80


def pictures(batch: int, height: int, width: int) -> Tensor:
    """(B, 3, H, W) uint8: blobs of all sizes, channels last."""
    random = torch.Generator().manual_seed(0)
    total = torch.zeros(batch, 3, height, width)
    for cell, weight in ((128, 1.0), (32, 0.6), (8, 0.3)):
        coarse = torch.randn(batch, 3, height // cell + 2, width // cell + 2, generator=random) * 60 * weight
        total += nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (total + 128).clamp(0, 255).byte().contiguous(memory_format=torch.channels_last)


def result(found: Detections, row: int = 0) -> Result:
    """One image of a batch of detections."""
    boxes, scores, labels = (x[row].float().cpu().numpy() for x in found[:3])
    keep = labels >= 0
    return Result(
        boxes=boxes[keep], scores=scores[keep], labels=labels[keep].astype(np.int64), names=[], size=(0, 0)
    )


def unmatched(expected: Result, found: Result) -> float:
    """Share of the expected detections that were not found, among those not close to the last score kept."""
    strong = expected.scores > expected.scores.min() + 0.01 if len(expected) == 100 else slice(None)
    rows = expected.boxes[strong], expected.scores[strong], expected.labels[strong]
    return 1 - peers.matched(rows, found)[0] / max(1, len(rows[1]))


def ours(
    detector: Detector, images: Tensor, sizes: Tensor, precision: str, compiled: bool
) -> Callable[[], Detections]:
    """Detections by our network, its arithmetic in ``precision``."""
    model, settings = detector.model, detector.config.predict
    device = model.mean.device
    network: Any = torch.compile(model, mode="reduce-overhead", dynamic=False) if compiled else model
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16

    @torch.inference_mode()
    def call() -> Detections:
        with torch.autocast(device.type, dtype, enabled=precision != "fp32"):
            outputs = network(images, sizes)
        return postprocess(outputs, sizes, settings)

    return call


def onnx(detector: Detector, checkpoint: Path, images: Tensor, sizes: Tensor) -> Callable[[], Detections]:
    """Detections by onnxruntime of the exported file."""
    from PIL import Image

    from fsaf.exporting.export import export_detector

    target = checkpoint.with_suffix(".onnx")
    picture = checkpoint.with_suffix(".png")
    Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(picture)
    export_detector(detector, target, [picture], size=tuple(images.shape[2:]), batch=len(images))
    exported = fsaf.load(target)
    return lambda: exported.detect(images, sizes)


def one_batch(
    args: argparse.Namespace, folder: Path, device: torch.device, batch: int, shape: tuple[int, int]
) -> dict[str, Any]:
    """All contenders on ``batch`` images."""
    images = pictures(batch, *shape)
    sizes = torch.tensor([shape] * batch)
    detector = fsaf.load(folder / "ours.pt", device)
    here, their_sizes = images.to(device), sizes.to(device)
    contenders: dict[str, Callable[[], Any]] = {}
    for precision in args.precision:
        contenders[f"fsaf {precision}"] = ours(detector, here, their_sizes, precision, False)
        if args.compile:
            contenders[f"fsaf {precision} compiled"] = ours(detector, here, their_sizes, precision, True)
    if args.onnx:
        contenders["fsaf onnxruntime"] = onnx(detector, folder / "ours.pt", images, sizes)
    exact = result(ours(detector, here, their_sizes, "fp32", False)())
    figures: dict[str, Any] = {"batch": batch, "shape": list(shape), "detections": len(exact), "checks": {}}
    peer_calls: dict[str, Callable[[], Any]] = {}
    if peers.has_mmdetection():
        theirs = peers.MMDetection(folder / "theirs.pth", "resnet50", str(device), (1333, 800))
        none = torch.zeros(batch, 1, dtype=torch.bool)
        no_boxes = Boxes(torch.zeros(batch, 1, 4), none.long(), none, none, sizes)
        their_batch = theirs.in_memory(images, no_boxes)
        boxes, scores, labels = theirs.predict(their_batch)[0]
        exact = Result(boxes=boxes, scores=scores, labels=labels, names=[], size=shape)
        peer_calls["MMDetection FSAF"] = lambda: theirs.predict(their_batch)
        if args.amp:
            dtype = torch.bfloat16

            def half() -> None:
                with torch.autocast(device.type, dtype):
                    theirs.predict(their_batch)

            peer_calls["MMDetection FSAF bf16"] = half
    else:
        print(peers.MISSING)
    for name in () if args.no_torchvision else peers.TORCHVISION:
        model = peers.Torchvision(name, str(device), shape)
        inputs = model.in_memory(here, Boxes(*(torch.zeros(batch, 1) > 0 for _ in range(5))))[0]
        peer_calls[f"torchvision {name}"] = lambda model=model, inputs=inputs: model.predict(inputs)
    for name, call in contenders.items():
        allowed = 0.02 if "fp32" in name or "onnx" in name else 0.3
        apart = unmatched(exact, result(call()))
        figures["checks"][name] = timing.check(f"{name}, share of detections not found", apart, allowed)
    first = next(iter(contenders))
    times = timing.alternate({**contenders, **peer_calls}, args.repeat, device)
    figures["seconds"] = timing.compare(f"predict {batch} x {shape[0]} x {shape[1]}", times, first, batch)
    return figures


def quickstart(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The small network of ``fsaf quickstart``, random weights, one image of 288 x 384."""
    config = load_recipe("digits_lite0", ["--model.weights=none"])
    model = peers.weights_by_rule(FSAF(config.model, 10)).eval().to(device)
    use_winograd(model)
    detector = Detector(model.to(memory_format=torch.channels_last), random_classes(10), config)
    images, sizes = pictures(1, 288, 384), torch.tensor([[288, 384]])
    times = timing.alternate({"fsaf": lambda: detector.detect(images, sizes)}, args.repeat * 3, device, 3)
    return timing.compare("quickstart 288 x 384", times, "fsaf")


def main() -> None:
    """Compare, then time, one batch size after the other."""
    parser = timing.arguments(__doc__ or "")
    parser.add_argument("--batch", type=int, nargs="+", help="images together (1; 1 32 on an accelerator)")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="800 1216; 800 1344")
    parser.add_argument(
        "--precision", nargs="+", choices=("fp32", "bf16", "fp16"), help="of ours, the first is compared"
    )
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="on an accelerator")
    parser.add_argument("--onnx", action=argparse.BooleanOptionalAction, help="onnxruntime, on a CPU")
    parser.add_argument("--no-torchvision", action="store_true", help="MMDetection only")
    args, device = timing.begin(parser)
    args.amp = fast = is_accelerator(device)
    args.batch = args.batch or ([1, 32] if fast and not args.quick else [1])
    args.size = tuple(args.size or ([256, 320] if args.quick else [800, 1344] if fast else [800, 1216]))
    args.precision = args.precision or (["bf16", "fp32"] if fast else ["fp32"])
    args.compile = fast if args.compile is None else args.compile
    args.onnx = not fast if args.onnx is None else args.onnx
    args.repeat = args.repeat or (1 if args.quick else 50 if fast else 5)
    config = load_recipe("fsaf_r50_fpn_1x_coco", ["--data.shapes=null", "--data.pad=32"])
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for file in ("ours.pt", "theirs.pth"):
            peers.write_ours(Path(name) / file, config, CLASSES)
        figures["batches"] = [one_batch(args, Path(name), device, batch, args.size) for batch in args.batch]
    if not fast:
        figures["quickstart"] = quickstart(args, device)
    timing.finish(args, device, figures)


if __name__ == "__main__":
    main()
