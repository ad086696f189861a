"""Write a detector as one ONNX file, with normalisation, decoding and suppression inside.

Shapes: N images, H and W of the padded images.
"""

import contextlib
import copy
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fsaf._version import __version__
from fsaf.config import Config, limits
from fsaf.config.data import MULTIPLE
from fsaf.data.records import Classes
from fsaf.detection.classes import with_labels
from fsaf.detection.exported import Session
from fsaf.detection.file_info import Outputs, make_metadata, output_names
from fsaf.detection.onnx import OnnxSession
from fsaf.device import HOST
from fsaf.errors import UserError, import_extra
from fsaf.exporting.check import Check, Comparison, check_file
from fsaf.exporting.modules import make_module, use_constant_padding
from fsaf.exporting.opset import LOWEST, LOWEST_TRACED, lower_opset
from fsaf.exporting.reduced import ReducedReport
from fsaf.files import check_folder, remove_leftovers, whole
from fsaf.model.detector import FSAF

OPENVINO = ".xml"
"""Suffix of OpenVINO's files."""
TRACED = (256, 384)
"""Size that a file with free sizes is traced with: no level has a side of 1, which would be a constant."""


@dataclass(kw_only=True)
class ExportReport:
    """An exported file and its comparison with PyTorch."""

    path: Path
    megabytes: float
    opset: int
    input_shape: tuple[int | None, int, int | None, int | None]
    """(N, 3, H, W) of the images; None for what is free."""
    seconds: float
    """Time to write the file, without the comparison."""
    comparison: Comparison | None
    """None if no images were given to compare with. Of a file in fewer bits, that of the float file."""
    reduced: ReducedReport | None = None
    """What fewer bits change, in a file that has them."""
    script: Path | None = None
    """Script that runs the file without fsaf (``--standalone``)."""
    web: Path | None = None
    """Folder with a page that runs the file in the browser (``--web``)."""

    def summary(self) -> str:
        """Return size, opset and comparison in a few lines."""
        text = self._compared()
        return f"{text}\n{self.reduced.summary()}" if self.reduced else text

    def _compared(self) -> str:
        kind = "OpenVINO" if self.path.suffix == OPENVINO else f"opset {self.opset}"
        text = f"{self.path}: {self.megabytes:.1f} MB, {kind}, written in {self.seconds:.0f} s"
        if self.comparison is None:
            return text
        c, first = self.comparison, "in float32 " if self.reduced else ""
        if not c.detections:
            return f"{text}\nwarning: nothing is detected on the {c.images} images, so little was compared"
        return (
            f"{text}\n{first}equal to PyTorch on {c.images} images, {c.detections:,} {c.compared}: boxes "
            f"within {c.max_box_difference:.2g} px, scores within {c.max_score_difference:.1g}; "
            f"the first takes {c.runtime} {1e3 * c.file_seconds:.0f} ms, "
            f"PyTorch {1e3 * c.torch_seconds:.0f}"
        )


def export_onnx(
    model: FSAF,
    classes: Classes,
    config: Config,
    path: Path,
    *,
    size: tuple[int, int] | None = None,
    batch: int = 1,
    dynamic_batch: bool = False,
    opset: int | None = None,
    outputs: Outputs = "detections",
    float_images: bool | None = None,
    fixed_size: bool = False,
    check_graph: Callable[[Any], None] = lambda graph: None,
    batches: Sequence[tuple[Tensor, Tensor]] = (),
    convert: Callable[[Path, Path, Check], Comparison | ReducedReport] | None = None,
) -> ExportReport:
    """Write ``model`` to ``path``. The file appears only when it is whole and, given images, checked.

    size: (H, W) that images are padded to, multiples of 32; None for a file that takes any such size.
    batch: N, unless ``dynamic_batch`` leaves it to the caller of the file. opset: of ONNX, 13 or later; by
    default the one PyTorch prefers. outputs: see ``fsaf.exporting.modules``. float_images: take float32
    0..255 instead of uint8. fixed_size: leave out the input ``sizes``; the caller fills the padding with the
    mean colour. check_graph: called with the graph, of onnx_ir, before the file is written; it may raise.
    batches: real preprocessed images, (n, 3, H, W) uint8, and their sizes inside the padding, (n, 2), any
    number; onnxruntime runs the file on them and must agree with PyTorch. convert: called then with a
    draft of the file, to replace it by the file asked for (``fsaf.exporting.convert``).
    Raises UserError for wrong settings, a missing package, or a file that disagrees.
    """
    config = replace(config, model=model.settings, predict=with_labels(config.predict, classes))
    _check_settings(path, size, batch, opset)
    if outputs == "raw" and config.model.branches != ["anchor_free"]:
        raise UserError("raw: not supported for detectors with anchors; leave out --raw")
    check_folder(path.parent)
    remove_leftovers(path.parent)
    start = time.perf_counter()
    network = make_module(copy.deepcopy(model).cpu().float().eval(), outputs, config.predict, size).eval()
    if size is None:
        use_constant_padding(network)
    # Trace with more than one image: PyTorch treats a batch of 1 as a constant.
    count = 2 if dynamic_batch else batch
    dtype = torch.float32 if float_images else torch.uint8
    traced = size or TRACED
    example = (torch.zeros(count, 3, *traced, dtype=dtype), torch.tensor([traced] * count))
    names = output_names(outputs, config)
    shapes = _free_sides(dynamic_batch, size is None)
    inputs = 1 if fixed_size else 2
    traced_opset = None if opset is None else max(opset, LOWEST_TRACED)
    program = _trace(network, example[:inputs], names, shapes and shapes[:inputs], traced_opset)
    written = program.model.opset_imports[""]
    if traced_opset is not None and written != traced_opset:
        raise UserError(f"opset {opset}: this PyTorch's exporter can only write opset {written}; use that")
    check_graph(program.model.graph)
    metadata = make_metadata(classes, config, size, outputs, fixed_size)
    program.model.producer_name, program.model.producer_version = "fsaf", __version__
    program.model.metadata_props.update(
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    )

    def check(session: Session) -> Comparison:
        return check_file(session, network, batches, outputs, config, classes, str(path))

    with whole(path) as draft:
        program.save(draft, external_data=False)
        if opset is not None and opset < LOWEST_TRACED:
            lower_opset(draft, opset)
        seconds = time.perf_counter() - start
        comparison, reduced = None, None
        if batches:
            comparison = check(OnnxSession(draft, HOST))
        if convert:
            found = convert(draft, path, check)
            comparison = found if isinstance(found, Comparison) else comparison
            reduced = found if isinstance(found, ReducedReport) else None
    files = [path, path.with_suffix(".bin")] if path.suffix == OPENVINO else [path]
    return ExportReport(
        path=path,
        megabytes=sum(file.stat().st_size for file in files) / 1e6,
        opset=opset or written,
        input_shape=(None if dynamic_batch else batch, 3, *(size or (None, None))),
        seconds=seconds,
        comparison=comparison,
        reduced=reduced,
    )


def _check_settings(path: Path, size: tuple[int, int] | None, batch: int, opset: int | None) -> None:
    onnx = import_extra("onnx")
    import_extra("onnxscript")
    import_extra("onnxruntime")
    if path.suffix not in (".onnx", OPENVINO):
        raise UserError(f"{path}: the name of an exported file must end in .onnx, or .xml for OpenVINO")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the name of a file")
    if size and any(side < MULTIPLE or side % MULTIPLE for side in size):
        raise UserError(f"size {size[0]} x {size[1]}: both must be multiples of {MULTIPLE}")
    if size and size[0] * size[1] > limits.AREA:
        raise UserError(f"size {size[0]} x {size[1]}: at most {limits.AREA:,} pixels are possible")
    if not 1 <= batch <= limits.BATCH:
        raise UserError(f"batch {batch}: must be between 1 and {limits.BATCH}")
    highest = onnx.defs.onnx_opset_version()
    if opset is not None and not LOWEST <= opset <= highest:
        raise UserError(f"opset {opset}: must be {LOWEST} to {highest}, the highest of the installed onnx")


def _free_sides(batch: bool, size: bool) -> Any:
    """Return the dimensions of images and sizes that are free, for ``torch.export``; None if none is."""
    if not batch and not size:
        return None
    free: dict[int, Any] = {0: torch.export.Dim("batch", min=1)} if batch else {}
    if not size:
        return free, free
    most = limits.SIDE // MULTIPLE
    rows, columns = (torch.export.Dim(name, min=1, max=most) for name in ("rows", "columns"))
    return {**free, 2: MULTIPLE * rows, 3: MULTIPLE * columns}, free


def _trace(
    network: nn.Module,
    example: tuple[Tensor, ...],
    output_names: list[str],
    free: Any,
    opset: int | None,
) -> Any:
    with _quiet():
        return torch.onnx.export(
            network,
            example,
            dynamo=True,
            verbose=False,
            input_names=["images", "sizes"][: len(example)],
            output_names=output_names,
            dynamic_shapes=free,
            opset_version=opset,
            custom_translation_table={torch.ops.fsaf.nms.default: _translate_nms},
        )


def _translate_nms(boxes_bk4: Any, scores_bk: Any, iou_threshold: float, max_detections: int) -> Any:
    """Translate ``fsaf::nms``: ONNX's NonMaxSuppression, whose list is brought to a fixed count.

    Candidates that are not kept get score 0, and TopK takes the best M, of equals the lower index.
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
    """Silence the exporter's log messages and warnings, which concern its own workings."""
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
