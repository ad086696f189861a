"""From JPEG files to detections: images a second of ``fsaf predict CHECKPOINT FOLDER --format json``.

    python benchmarks/files.py --threads 2

Networks of the small recipes with random weights and 10 classes, in PyTorch and in onnxruntime, suppression
inside, on photographs of scikit-learn scaled to 480 x 640. Decoding, resizing and writing JSON are counted;
starting Python is not.
"""

import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timing
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

import fsaf
from fsaf.annotation.annotate import Output, annotate
from fsaf.annotation.sources import find_sources
from fsaf.detection.detector import Detector
from fsaf.exporting.export import export_detector
from fsaf.measuring.inputs import random_classes
from fsaf.model.detector import FSAF
from fsaf.recipe import load_recipe

SHAPE = (288, 384)
RECIPES = ("tiny", "small", "lite0")


def write_photographs(folder: Path, count: int) -> Path:
    """Write ``count`` JPEG files, each another part of a photograph."""
    folder.mkdir()
    for number in range(count):
        photo = Image.fromarray(load_sample_images().images[number % 2])
        left, top = number % 7 * 8, number % 5 * 8
        part = photo.crop((left, top, left + 560, top + 380)).resize((640, 480))
        part.save(folder / f"{number:04d}.jpg", quality=92)
    return folder


def contender(detector: Detector, photographs: Path) -> Callable[[], Any]:
    """Return a call that predicts for the whole folder."""
    sources, _ = find_sources([str(photographs)])
    output = Output(folder=photographs.parent, json=True)

    def run() -> None:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            annotate(detector, sources, output)

    return run


def main() -> None:
    """Time all contenders in turns."""
    args, device = timing.begin(timing.arguments(__doc__ or "", threads=2))
    repeat = args.repeat or (1 if args.quick else 5)
    contenders = {}
    with tempfile.TemporaryDirectory() as name:
        photographs = write_photographs(Path(name) / "photographs", count := 8 if args.quick else 200)
        for recipe in RECIPES:
            config = load_recipe(
                recipe,
                [
                    "--model.weights=none",
                    f"--data.shapes=[{list(SHAPE)}]",
                    f"--data.short_side={SHAPE[0]}",
                    f"--data.long_side={SHAPE[1]}",
                ],
            )
            torch.manual_seed(0)
            detector = Detector(FSAF(config.model, 10).eval(), random_classes(10), config)
            checkpoint, file = (Path(name) / f"{recipe}.{suffix}" for suffix in ("pt", "onnx"))
            detector.save(checkpoint)
            export_detector(detector, file, [photographs / "0000.jpg"])
            contenders[f"{recipe}, PyTorch"] = contender(fsaf.load(checkpoint, device), photographs)
            contenders[f"{recipe}, onnxruntime"] = contender(fsaf.load(file), photographs)
        times = timing.alternate(contenders, repeat, device)
    figures = timing.compare(f"{count} files of 480 x 640", times, "tiny, onnxruntime", count)
    timing.finish(args, device, figures)


if __name__ == "__main__":
    main()
