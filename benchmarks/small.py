"""Small detectors on a CPU: one image of 288 x 384 in memory to raw outputs, in PyTorch and in onnxruntime.

    python benchmarks/small.py --threads 2

All networks have random weights and 10 classes (the peers 80). Suppression is left out, since the peers' is
another algorithm. The peers, YOLO11n and YOLO26n with batch norms merged, need ``pip install ultralytics``.
Last come files of ``fsaf export --raw``, in float32 and in 8 bits, calibrated on a random image: what is
normalised and decoded is inside these.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
from torch import Tensor, nn

from fsaf.detection.detector import Detector
from fsaf.exporting.export import export_detector
from fsaf.measuring.inputs import random_classes
from fsaf.model.convolution import use_winograd
from fsaf.model.detector import FSAF
from fsaf.recipe import load_recipe

SHAPE = (288, 384)
RECIPES = ("medium", "lite0", "small", "tiny")
PEERS = ("yolo11n", "yolo26n")

Contenders = dict[str, Callable[[], Any]]


def ours(name: str, folder: Path, pytorch: Contenders, onnx: Contenders, files: Contenders) -> float:
    """Add the network of a recipe to all kinds of contenders; return its parameters in millions."""
    config = load_recipe(name, ["--model.weights=none", f"--data.shapes=[{list(SHAPE)}]"])
    torch.manual_seed(0)
    model = FSAF(config.model, 10).eval()
    use_winograd(model)
    detector = Detector(model.to(memory_format=torch.channels_last), random_classes(10), config)
    picture = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    for bits, options in (("float32", {}), ("8 bits", {"calibrate": [picture]})):
        file = folder / f"{name} {bits}.onnx"
        export_detector(detector, file, [picture], outputs="raw", fixed_size=True, **options)
        files[f"{name}, {bits}"] = session(file, torch.from_numpy(picture).permute(2, 0, 1)[None])
    detector.fold()
    image = torch.randint(0, 256, (1, 3, *SHAPE), dtype=torch.uint8)
    pytorch[name] = torch.inference_mode()(lambda: detector.network.runs(image))  # type: ignore[attr-defined]
    file = folder / f"{name}.onnx"
    torch.onnx.export(
        Floats(model).eval(), (image.float(),), file, dynamo=True, verbose=False, external_data=False
    )
    onnx[name] = session(file, image)
    return sum(weight.numel() for weight in model.parameters()) / 1e6


class Floats(nn.Module):
    """A network without its ``normalise``, which the peers' lack too."""

    def __init__(self, model: FSAF) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.model.head(self.model.pyramid(self.model.backbone(images))).free
        return *outputs.logits, *outputs.distances


def peer(name: str, folder: Path, pytorch: Contenders, onnx: Contenders) -> float:
    """Add a peer from its own definition."""
    os.environ["YOLO_AUTOINSTALL"] = "false"
    from ultralytics import YOLO

    torch.manual_seed(0)
    model = YOLO(f"{name}.yaml", verbose=False).model.eval().fuse(verbose=False)
    for layer in model.modules():
        if hasattr(layer, "export"):
            layer.export, layer.format = True, "onnx"
    image = torch.rand(1, 3, *SHAPE)
    pytorch[name] = torch.inference_mode()(lambda: model(image))
    file = folder / f"{name}.onnx"
    torch.onnx.export(model, (image,), file, dynamo=False, opset_version=17)  # as ultralytics does
    onnx[name] = session(file, image)
    return float(sum(weight.numel() for weight in model.parameters()) / 1e6)


def session(file: Path, image: Tensor) -> Callable[[], Any]:
    """Return a call of onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # or the others would be disturbed
    opened = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    first = opened.get_inputs()[0]
    inputs = {first.name: image.numpy().astype(np.float32 if "float" in first.type else np.uint8)}
    return lambda: opened.run(None, inputs)


def main() -> None:
    """Time all contenders in turns, first in PyTorch, then in onnxruntime."""
    parser = timing.arguments(__doc__ or "", threads=2)
    args, device = timing.begin(parser)
    repeat = args.repeat or (2 if args.quick else 30)
    pytorch: Contenders = {}
    onnx: Contenders = {}
    files: Contenders = {}
    weights: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        for recipe in RECIPES:
            weights[recipe] = ours(recipe, Path(name), pytorch, onnx, files)
        try:
            for each in PEERS:
                weights[each] = peer(each, Path(name), pytorch, onnx)
        except ImportError as error:
            print(f"the peers are left out: pip install ultralytics ({error})")
        figures: dict[str, Any] = {"millions of weights": weights}
        for runtime, contenders, first in (
            ("PyTorch", pytorch, "small"),
            ("onnxruntime", onnx, "small"),
            ("onnxruntime, files", files, "small, 8 bits"),
        ):
            times = timing.alternate(contenders, repeat, device, 3)
            figures[runtime] = timing.compare(f"{runtime} {SHAPE[0]} x {SHAPE[1]}", times, first)
    print("\nmillions of weights: " + ", ".join(f"{key} {value:.2f}" for key, value in weights.items()))
    timing.finish(args, device, figures)


if __name__ == "__main__":
    main()
