"""Write a detector as one ONNX file: normalisation, network, decoding and suppression inside.

Shapes: N images, H and W of the padded images, C classes, P locations of all levels, M max_detections.
"""

import contextlib
import copy
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fsaf._version import __version__
from fsaf.config import Config, PredictConfig, to_dict
from fsaf.data.records import Classes
from fsaf.data.shapes import MULTIPLE
from fsaf.detection.onnx import FORMAT, VERSION
from fsaf.detection.postprocess import postprocess
from fsaf.errors import UserError, import_extra
from fsaf.exporting.check import Comparison, check_file
from fsaf.model.detector import FSAF
from fsaf.model.points import decode_boxes

LOWEST_OPSET = 18
"""PyTorch's exporter writes no older ones."""


@dataclass(kw_only=True)
class ExportReport:
    """What was written, and how it compares with PyTorch."""

    path: Path
    megabytes: float
    opset: int
    seconds: float
    """Time to write the file, without the comparison."""
    comparison: Comparison | None
    """None where no images were given to compare with."""

    def summary(self) -> str:
        """What a person wants to know, in a line or two."""
        text = f"{self.path}: {self.megabytes:.1f} MB, opset {self.opset}, written in {self.seconds:.0f} s"
        if self.comparison is None:
            return text
        c = self.comparison
        if not c.detections:
            return f"{text}\nwarning: nothing is detected on the {c.images} images, so little was compared"
        return (
            f"{text}\nequal to PyTorch on {c.images} images, {c.detections} detections: boxes within "
            f"{c.max_box_difference:.2g} px, scores within {c.max_score_difference:.1g}; "
            f"{1e3 * c.onnx_seconds:.0f} ms an image by onnxruntime, {1e3 * c.torch_seconds:.0f} by PyTorch"
        )


class WithDetections(nn.Module):
    """images, sizes -> boxes, scores, labels."""

    def __init__(self, model: FSAF, settings: PredictConfig) -> None:
        super().__init__()
        self.model, self.settings = model, settings

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = postprocess(self.model(images, sizes), sizes, self.settings)
        return found.boxes_bm4, found.scores_bm, found.labels_bm


class WithRawOutputs(nn.Module):
    """images, sizes -> logits (N, C, P), and boxes (N, P, 4) decoded but not clipped."""

    def __init__(self, model: FSAF) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        logits_bcp, distances_b4p, points = self.model(images, sizes).flat()
        return logits_bcp, decode_boxes(distances_b4p, points).transpose(1, 2)


def export_onnx(
    model: FSAF,
    classes: Classes,
    config: Config,
    path: Path,
    *,
    size: tuple[int, int],
    batch: int = 1,
    dynamic_batch: bool = False,
    opset: int | None = None,
    raw: bool = False,
    float_images: bool = False,
    images: Tensor | None = None,
    sizes_b2: Tensor | None = None,
) -> ExportReport:
    """Write ``model`` to ``path``; the file appears only once it is whole and, if asked, checked.

    size: (H, W) that images are padded to, multiples of 32. batch: N, unless ``dynamic_batch`` leaves it to
    the caller of the file. opset: of ONNX, 18 or later; by default the one PyTorch prefers. raw: write
    ``WithRawOutputs`` instead of ``WithDetections``. float_images: take float32 0..255 instead of uint8.
    images, sizes_b2: (n, 3, H, W) uint8 and (n, 2), real preprocessed images, any number; the file is run on
    them by onnxruntime and must agree with PyTorch.
    Raises UserError for wrong settings, a missing package, or a file that disagrees.
    """
    _check_settings(path, size, batch, opset)
    if raw and config.model.branches != ["anchor_free"]:
        raise UserError(
            "raw: anchors' outputs are not written so; export a detector with anchors without --raw"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot write the file ({error})") from error
    start = time.perf_counter()
    frozen = copy.deepcopy(model).cpu().float().eval()
    network = WithRawOutputs(frozen) if raw else WithDetections(frozen, config.predict)
    # A dynamic batch must not be 1 while tracing, where PyTorch takes 1 for a constant.
    count = 2 if dynamic_batch else batch
    dtype = torch.float32 if float_images else torch.uint8
    example = (torch.zeros(count, 3, *size, dtype=dtype), torch.tensor([size] * count))
    program = _trace(network.eval(), example, raw, dynamic_batch, opset)
    written = program.model.opset_imports[""]
    if opset is not None and written != opset:
        raise UserError(f"opset {opset}: this PyTorch's exporter could write opset {written} only; take that")
    program.model.producer_name, program.model.producer_version = "fsaf", __version__
    program.model.metadata_props.update(make_metadata(classes, config, size, raw))

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        program.save(temporary, external_data=False)
        seconds = time.perf_counter() - start
        comparison = None
        if images is not None:
            if sizes_b2 is None:
                sizes_b2 = torch.tensor([size] * len(images))
            comparison = check_file(temporary, network, images, sizes_b2, config.predict, classes, str(path))
        megabytes = temporary.stat().st_size / 1e6
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write the file ({error})") from error
    finally:
        temporary.unlink(missing_ok=True)
    return ExportReport(path=path, megabytes=megabytes, opset=written, seconds=seconds, comparison=comparison)


def make_metadata(classes: Classes, config: Config, size: tuple[int, int], raw: bool) -> dict[str, str]:
    """The file's ``metadata_props``: what a program needs to prepare images and name detections.

    The stored config asks for the file's own batch shape, and names no path of this machine.
    """
    data = replace(config.data, shapes=[size], pad=None, root=None, train=type(config.data.train)())
    data = replace(data, val=type(config.data.val)())
    own = replace(config, data=data, model=replace(config.model, weights="none"), init=None, out=None)
    preprocessing = {
        "colour": "RGB",
        "range": [0, 255],
        "resize": {"short_side": data.short_side, "long_side": data.long_side, "antialias": data.antialias},
        "pad_to": list(size),
        "pad_multiple": MULTIPLE,
        "pad_where": "right and bottom",
        "normalisation": "inside the file; padding becomes 0 after it",
    }
    return {
        "format": FORMAT,
        "version": str(VERSION),
        "outputs": "raw" if raw else "detections",
        "classes": json.dumps({"names": list(classes.names), "ids": list(classes.ids)}),
        "config": json.dumps(to_dict(own)),
        "preprocessing": json.dumps(preprocessing),
    }


def _check_settings(path: Path, size: tuple[int, int], batch: int, opset: int | None) -> None:
    onnx = import_extra("onnx")
    import_extra("onnxscript")
    import_extra("onnxruntime")
    if path.suffix != ".onnx":
        raise UserError(f"{path}: the name of an exported file must end in .onnx")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file")
    if any(side < MULTIPLE or side % MULTIPLE for side in size):
        raise UserError(f"size {size[0]} x {size[1]}: both must be multiples of {MULTIPLE}")
    if batch < 1:
        raise UserError(f"batch {batch}: must be at least 1")
    highest = onnx.defs.onnx_opset_version()
    if opset is not None and not LOWEST_OPSET <= opset <= highest:
        raise UserError(f"opset {opset}: must be {LOWEST_OPSET} to {highest}, as the installed onnx knows")


def _trace(
    network: nn.Module, example: tuple[Tensor, Tensor], raw: bool, dynamic_batch: bool, opset: int | None
) -> Any:
    free = {0: torch.export.Dim("batch", min=1)}
    with _quiet():
        return torch.onnx.export(
            network,
            example,
            dynamo=True,
            verbose=False,
            input_names=["images", "sizes"],
            output_names=["logits", "boxes"] if raw else ["boxes", "scores", "labels"],
            dynamic_shapes=(free, free) if dynamic_batch else None,
            opset_version=opset,
            custom_translation_table={torch.ops.fsaf.nms.default: _translate_nms},
        )


def _translate_nms(boxes_bk4: Any, scores_bk: Any, iou_threshold: float, max_detections: int) -> Any:
    """``fsaf::nms`` in ONNX: its NonMaxSuppression lists what it keeps; this brings it to a fixed count.

    Everything not kept gets score 0, and the best M are taken: TopK prefers the lower index among equals.
    """
    op = import_extra("onnxscript").opset18
    zero = op.Constant(value_floats=[0.0])
    limit = op.Constant(value_ints=[max_detections])
    selected_s3 = op.NonMaxSuppression(  # rows of image, class, candidate; candidates scored above 0 only
        boxes_bk4, op.Unsqueeze(scores_bk, [1]), limit, op.Constant(value_floats=[iou_threshold]), zero
    )
    places_s2 = op.Gather(selected_s3, op.Constant(value_ints=[0, 2]), axis=1)
    nothing_bk = op.Expand(zero, op.Shape(scores_bk))
    kept_bk = op.ScatterND(nothing_bk, places_s2, op.GatherND(scores_bk, places_s2))
    # TopK needs at least M columns.
    room_bm = op.Expand(zero, op.Concat(op.Shape(scores_bk, end=1), limit, axis=0))
    best_bm, index_bm = op.TopK(op.Concat(kept_bk, room_bm, axis=1), limit, axis=1)
    return op.Where(op.Greater(best_bm, zero), index_bm, op.Constant(value_ints=[-1]))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks, which are about its own workings, from the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
