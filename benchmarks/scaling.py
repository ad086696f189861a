"""How cost grows: with the batch, image size, boxes, classes, size of the data set, and number of processes.

    python benchmarks/scaling.py [--device cuda] [--only batch size boxes classes data processes]

Each point is a process of its own, so that its peak memory is its own: of the device on an accelerator, else
what the process had in memory. Training steps are of ``fsaf_r50_fpn_1x_coco`` on an accelerator, of the
quickstart's small network on a CPU; --recipe takes another. Reader: annotation files of 1,000 to 1,000,000
images with 7 boxes each, as long as COCO's; the largest takes 4 GB of disk and tens of GB of memory.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import timing
import torch

from fsaf.data.readers.coco import read_coco
from fsaf.device import is_accelerator, peak_memory, resolve_device
from fsaf.errors import UserError
from fsaf.measuring.inputs import random_batch, random_classes
from fsaf.measuring.timing import measure, summary, wait
from fsaf.processes import group
from fsaf.processes.join import join
from fsaf.processes.launch import launch
from fsaf.recipe import load_recipe
from fsaf.training.start import start_run
from fsaf.training.step import ForwardLoss, train_step

AXES = ("batch", "size", "boxes", "classes", "data", "processes")


def step_point(options: dict[str, Any]) -> dict[str, Any]:
    """Images a second of all processes, and peak memory of this one, of one training step."""
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    with join(options["device"]) as device, tempfile.TemporaryDirectory() as folder:
        config = load_recipe(options["recipe"], ["--model.weights=none", f"--out={folder}", *options["set"]])
        run = start_run(config, random_classes(options["classes"]), device)
        run.model.train()
        forward_loss = group.averaging(
            ForwardLoss(run.model, config.objective, run.precision), device, buffers=False
        )
        batch, (height, width) = options["batch"], options["size"]
        images, boxes = random_batch(batch, height, width, options["boxes"], options["classes"])
        images, boxes = images.to(device), boxes.to(device)
        times = measure(
            lambda: train_step(run, forward_loss, images, boxes, 1e-9), device, options["seconds"], 2, 1
        )
        wait(device)
        median = summary(times)["median"]
        processes = group.processes()
        memory = peak_memory(device) if is_accelerator(device) else resident()
    return {"images_per_second": batch * processes / median, "median": median, "memory_bytes": memory}


def write_annotations(path: Path, images: int, boxes: int = 7) -> None:
    """A COCO file like instances_train2017.json without its polygons, written piece by piece."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"categories": ')
        json.dump([{"id": i, "name": f"class {i}"} for i in range(1, 81)], file)
        file.write(', "images": [')
        for i in range(1, images + 1):
            name = f"{i:012d}.jpg"
            entry = {"id": i, "file_name": name, "width": 640, "height": 480, "license": 3}
            file.write((", " if i > 1 else "") + json.dumps(entry))
        file.write('], "annotations": [')
        for i in range(images * boxes):
            entry = {
                "id": i + 1,
                "image_id": i // boxes + 1,
                "category_id": i % 80 + 1,
                "bbox": [round(i % 311 * 1.37, 2), round(i % 199 * 1.73, 2), 40.25 + i % 90, 30.5 + i % 70],
                "area": 1234.5 + i % 1000,
                "iscrowd": 0,
                # About as long as COCO's polygons are, which the reader must pass over.
                "segmentation": [[round(i % 97 * 3.1 + k * 0.37, 2) for k in range(44)]],
            }
            file.write((", " if i else "") + json.dumps(entry))
        file.write("]}")


def reader_point(options: dict[str, Any]) -> dict[str, Any]:
    """Seconds and peak memory of opening an annotation file."""
    path = Path(options["path"])
    before = resident()
    start = time.perf_counter()
    records = read_coco(path, path.parent)
    seconds = time.perf_counter() - start
    if len(records.images) != options["images"]:
        raise UserError(f"{path}: {len(records.images)} images read of {options['images']}")
    return {"median": seconds, "memory_bytes": resident(), "before_bytes": before}


def resident() -> int:
    """Most bytes that this process had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _child(function: Any, options: dict[str, Any], pipe: Any) -> None:
    pipe.send(function(options))


def alone(function: Any, options: dict[str, Any]) -> dict[str, Any] | None:
    """``function(options)`` in a process of its own; None where it dies, as of too little memory."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_child, args=(function, options, theirs))
    process.start()
    theirs.close()
    try:
        return mine.recv()
    except EOFError:
        return None
    finally:
        process.join()


def _launched(options: dict[str, Any], out: str) -> None:
    found = step_point(options)
    if os.environ["RANK"] == "0":  # the group that knew the ranks has ended
        Path(out).write_text(json.dumps(found), encoding="utf-8")


def in_processes(options: dict[str, Any], count: int) -> dict[str, Any]:
    """One training step by ``count`` processes that average their gradients."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        if count == 1:
            return alone(step_point, options) or {}
        launch(_launched, (options, str(out)), count, 0)
        return json.loads(out.read_text(encoding="utf-8"))


def show(axis: str, value: object, found: dict[str, Any] | None) -> dict[str, Any]:
    """Print a point and return it for JSON."""
    if not found:
        print(f"{axis:>10} {value!s:>12}  did not fit into memory")
        return {"at": value, "failed": True}
    speed = f"{found['images_per_second']:>9.2f} img/s" if "images_per_second" in found else ""
    memory = f"{found['memory_bytes'] / 2**30:>7.2f} GiB"
    print(f"{axis:>10} {value!s:>12} {found['median'] * 1e3:>11.1f} ms {memory} {speed}", flush=True)
    return {"at": value, **found}


def main() -> None:
    """One axis after the other."""
    parser = timing.arguments(__doc__ or "")
    parser.add_argument("--only", nargs="+", choices=AXES, default=AXES, help="axes to measure (all)")
    parser.add_argument("--recipe", help="recipe of the training steps")
    parser.add_argument("--max-images", type=int, default=1_000_000, help="of the data sets (1,000,000)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each point is repeated (3)")
    args, device = timing.begin(parser)
    fast = is_accelerator(device)
    base: dict[str, Any] = {
        "device": str(device),
        "threads": args.threads,
        "recipe": args.recipe or ("fsaf_r50_fpn_1x_coco" if fast else "digits_lite0"),
        "set": ["--train.precision=bf16"] if fast else [],
        "seconds": 0.1 if args.quick else args.seconds,
        "batch": 8 if fast else 2,
        "size": (800, 1344) if fast else (256, 320),
        "boxes": 20,
        "classes": 80,
    }
    values: dict[str, list[Any]] = {
        "batch": [1, 2, 4, 8, 16, 32] if fast else [1, 2, 4, 8, 16],
        "size": [(256, 320), (384, 512), (512, 768), (800, 1344)],
        "boxes": [1, 10, 100, 500],
        "classes": [1, 20, 80, 365, 1203],
    }
    figures: dict[str, Any] = {"base": {key: value for key, value in base.items()}}
    for axis, points in values.items():
        if axis in args.only:
            some = points[:2] if args.quick else points
            figures[axis] = [show(axis, at, alone(step_point, {**base, axis: at})) for at in some]
    if "data" in args.only:
        figures["data"] = data(args)
    if "processes" in args.only:
        count = torch.accelerator.device_count() if fast else 2
        some = sorted({1, 2, 4, 8, count} & set(range(1, count + 1)))
        own = {**base, "device": resolve_device(args.device).type if fast else "cpu"}
        own["threads"] = None if fast else 1
        figures["processes"] = [show("processes", n, in_processes(own, n)) for n in some]
    timing.finish(args, device, figures)


def data(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The reader on files of growing size; 118,287 images are COCO's train2017."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for images in (1_000, 10_000, 118_287, 1_000_000):
            if images > (10_000 if args.quick else args.max_images):
                break
            path = Path(folder) / "instances.json"
            write_annotations(path, images)
            size = path.stat().st_size
            print(f"{'':>10} {size / 1e6:>12,.0f} MB of JSON")
            point = alone(reader_point, {"path": str(path), "images": images})
            found.append({"bytes": size, **show("data", images, point)})
    return found


if __name__ == "__main__":
    main()
