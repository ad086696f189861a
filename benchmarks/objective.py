"""The training objective alone, forward and backward, beside MMDetection's: 800 x 1344, 100 boxes an image.

    python benchmarks/objective.py [--batch 2] [--boxes 100] [--compile] [--device cpu]

Both get the same raw outputs and the same boxes; their loss terms are compared before anything is timed.
With ``--compile`` ours is timed as ``--train.compile true`` makes it, too.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import peers
import timing
import torch
from torch import Tensor

from fsaf.data.batch import Boxes
from fsaf.measuring.inputs import random_batch
from fsaf.measuring.timing import summary
from fsaf.model.outputs import FreeOutputs, RawOutputs
from fsaf.model.points import STRIDES
from fsaf.objective.objective import objective
from fsaf.recipe import load_recipe

CLASSES = 80


def raw_outputs(batch: int, height: int, width: int, device: torch.device) -> RawOutputs:
    """Random raw outputs as leaves that take gradients, of a network that has begun to learn."""
    random = torch.Generator().manual_seed(0)
    logits, distances = [], []
    for stride in STRIDES:
        shape = (-(-height // stride), -(-width // stride))
        logits.append((torch.randn(batch, CLASSES, *shape, generator=random) - 4).to(device).requires_grad_())
        distances.append(torch.rand(batch, 4, *shape, generator=random).to(device).requires_grad_())
    return RawOutputs(FreeOutputs(logits, distances))


def gradients(outputs: RawOutputs) -> list[Tensor]:
    """Gradients of all outputs, which are then cleared."""
    leaves = outputs.tensors()
    found = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return found


def _apart(expected: list[Tensor], found: list[Tensor]) -> float:
    """The largest difference, as a share of the largest number."""
    apart = max(float((a - b).abs().max()) for a, b in zip(expected, found, strict=True))
    return apart / max(float(x.abs().max()) for x in expected)


def main() -> None:
    """Compare, then time."""
    parser = timing.arguments(__doc__ or "", repeat=10)
    parser.add_argument("--batch", type=int, default=2, help="images (2)")
    parser.add_argument("--boxes", type=int, default=100, help="boxes an image (100)")
    parser.add_argument("--compile", action="store_true", help="ours compiled as well")
    args, device = timing.begin(parser)
    height, width = (256, 320) if args.quick else (800, 1344)
    repeat = 2 if args.quick else args.repeat
    config = load_recipe("fsaf_r50_fpn_1x_coco")
    settings = config.objective
    outputs = raw_outputs(args.batch, height, width, device)
    images, boxes = random_batch(args.batch, height, width, args.boxes, CLASSES)
    ours_boxes = boxes.to(device)

    def ours() -> Any:
        terms = objective(outputs, ours_boxes, settings)
        terms.loss.backward()
        return terms

    contenders = {"fsaf": ours}
    figures: dict[str, Any] = {"batch": args.batch, "boxes": args.boxes, "shape": [height, width]}
    if args.compile:
        compiled = torch.compile(objective, fullgraph=True, dynamic=False)

        def ours_compiled() -> Any:
            terms = compiled(outputs, ours_boxes, settings)
            terms.loss.backward()
            return terms

        started = time.perf_counter()
        compiled_terms, compiled_gradients = ours_compiled(), gradients(outputs)
        figures["compile_seconds"] = time.perf_counter() - started
        terms, eager_gradients = ours(), gradients(outputs)
        apart = abs(float(compiled_terms.loss.detach()) / float(terms.loss.detach()) - 1)
        figures["compiled loss"] = timing.check("loss, compiled", apart, 1e-5)
        figures["compiled gradients"] = timing.check(
            "gradients, compiled", _apart(eager_gradients, compiled_gradients), 1e-5
        )
        contenders["fsaf, compiled"] = ours_compiled
    if peers.has_mmdetection():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "theirs.pth"
            peers.write_ours(path, config)
            theirs = peers.MMDetection(path, "resnet50", str(device), (1333, 800))
        head = theirs.model.train().bbox_head
        samples = theirs.in_memory(images, boxes)["data_samples"]
        for sample in samples:
            sample.set_metainfo({"pad_shape": (height, width), "batch_input_shape": (height, width)})
            sample.gt_instances = sample.gt_instances.to(device)
            sample.ignored_instances = sample.ignored_instances.to(device)
        metas = [sample.metainfo for sample in samples]

        def mmdetection() -> Any:
            terms = head.loss_by_feat(
                *map(list, outputs.free),  # it puts others into the lists
                [sample.gt_instances for sample in samples],
                metas,
                [sample.ignored_instances for sample in samples],
            )
            (sum(terms["loss_cls"]) + sum(terms["loss_bbox"])).backward()
            return terms

        our_terms, our_gradients = ours(), gradients(outputs)
        their_terms, their_gradients = mmdetection(), gradients(outputs)
        for name, a, b in (
            ("classification loss", sum(their_terms["loss_cls"]), our_terms.loss_cls_l.sum()),
            ("box loss", sum(their_terms["loss_bbox"]), our_terms.loss_box_l.sum()),
        ):
            figures[name] = timing.check(name, abs(float(a.detach()) / float(b.detach()) - 1), 1e-4)
        apart = _apart(their_gradients, our_gradients)
        figures["gradients"] = timing.check("gradients, of the largest", apart, 1e-3)
        contenders["MMDetection"] = mmdetection
    else:
        print(peers.MISSING)

    def cleared(call: Any) -> Any:
        def timed() -> None:
            call()
            gradients(outputs)

        return timed

    times = timing.alternate({name: cleared(call) for name, call in contenders.items()}, repeat, device)
    figures["seconds"] = timing.compare("objective", times, "fsaf", args.batch)
    figures["median"] = summary(times["fsaf"])["median"]
    figures["crowded"] = _by_boxes(outputs, ours_boxes, settings, repeat, device)
    timing.finish(args, device, figures)


def _by_boxes(
    outputs: RawOutputs, boxes: Boxes, settings: Any, repeat: int, device: torch.device
) -> dict[str, Any]:
    """The same with the first 1, 10 ... boxes of each image: padding is not free, so say what boxes cost."""
    contenders = {}
    for count in (1, 10, boxes.xyxy.shape[1]):
        some = boxes._replace(
            xyxy=boxes.xyxy[:, :count],
            labels=boxes.labels[:, :count],
            valid=boxes.valid[:, :count],
            crowd=boxes.crowd[:, :count],
        )

        def call(some: Boxes = some) -> None:
            objective(outputs, some, replace(settings)).loss.backward()
            gradients(outputs)

        contenders[f"{count} boxes an image"] = call
    times = timing.alternate(contenders, repeat, device)
    return timing.compare("boxes", times, next(iter(contenders)), len(boxes.xyxy))


if __name__ == "__main__":
    main()
