"""Write a detector as a file of ONNX or OpenVINO, check it on pictures, and note both beside it."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fsaf.config import DataConfig
from fsaf.config.data import MULTIPLE
from fsaf.data.readers.splits import open_split
from fsaf.data.shapes import round_up
from fsaf.detection.detector import Detector
from fsaf.detection.file_info import FORMAT, make_metadata
from fsaf.detection.picture import Picture, Prepared, open_picture, prepare, stack
from fsaf.detection.views import scale_data
from fsaf.errors import UserError
from fsaf.exporting.ascend import ascend_options, check_operators
from fsaf.exporting.convert import Conversion
from fsaf.exporting.int8 import CALIBRATED_ON
from fsaf.exporting.onnx import OPENVINO, ExportReport, export_onnx
from fsaf.exporting.openvino import import_openvino
from fsaf.exporting.reduced import Reduction
from fsaf.exporting.standalone import check_standalone, write_script
from fsaf.exporting.web import check_web, fetch_runtime, write_web
from fsaf.files import write_text
from fsaf.text import parse_json


def export_detector(
    detector: Detector,
    path: Path,
    pictures: Sequence[Picture],
    *,
    size: tuple[int, int] | None = None,
    target: Literal["ascend"] | None = None,
    standalone: bool = False,
    web: Path | None = None,
    fp16: bool = False,
    calibrate: Sequence[Picture] | None = None,
    **options: Any,
) -> ExportReport:
    """Write ``detector`` to ``path``, check it on ``pictures``, and note both in ``export.json`` beside it.

    path: ends in ``.onnx``, or ``.xml`` for OpenVINO.
    size: (H, W) that images are padded to. By default it is free, any multiples of 32, unless the recipe has
    a single batch shape; with ``fixed_size`` or a ``target``, it is the first batch shape. target: for
    ``ascend`` the file is one that ATC reads (``fsaf.exporting.ascend``), and instead of ``export.json`` a
    JSON file of its name holds what an OM file made of it needs. standalone: write a script beside the file
    that runs it without fsaf. web: write this folder, with a page that runs it in the browser. fp16: write
    the network in float16. calibrate: quantise it to 8 bits, calibrated on these pictures. Both measure AP
    before and after on the validation split of the detector's data. options: of ``export_onnx``.
    Raises UserError if the file and PyTorch disagree; no file is left then.
    """
    model, config = detector.model, detector.config
    if not pictures:
        raise UserError("there is no picture to check the file on; give some with --images")
    openvino = path.suffix == OPENVINO
    if openvino:
        _check_openvino(standalone, target)
    _check_precision(fp16, calibrate is not None, target)
    if target == "ascend":
        options = {**ascend_options(options), "check_graph": check_operators}
        _check_free(path.with_suffix(".json"))
    if standalone:
        check_standalone(path, options.get("outputs", "detections"), config.predict)
    if web is not None:
        check_web(web, path, config, options)
        fetch_runtime()
    shapes = config.data.shapes
    if size is None and (target or options.get("fixed_size") or len(shapes or []) == 1):
        size = shapes[0] if shapes else (round_up(config.data.short_side), round_up(config.data.long_side))
    batches = _batches(pictures, config.data, size)
    reduction = _reduction(detector, calibrate, batches, size) if fp16 or calibrate is not None else None
    if reduction or openvino:
        options["convert"] = Conversion(openvino=openvino, reduction=reduction)
    report = export_onnx(model, detector.classes, config, path, size=size, batches=batches, **options)
    note = {"file": path.name, "size": size and list(size)} | dataclasses.asdict(report)
    del note["path"], note["script"], note["web"]
    if standalone:
        report.script = write_script(path)
    if web is not None:
        report.web = write_web(path, web)
    if target is None:
        _write(path.with_name("export.json"), note)
        return report
    own = replace(config, model=model.settings)
    metadata = make_metadata(detector.classes, own, size, options["outputs"], fixed_size=True)
    images_type = "float32" if options["float_images"] else "uint8"
    inputs = {"images": {"shape": report.input_shape, "type": images_type}}
    _write(path.with_suffix(".json"), metadata | {"inputs": inputs, "export": note})
    return report


def _check_openvino(standalone: bool, target: str | None) -> None:
    if target:
        raise UserError("for ascend: ATC reads ONNX files; give --out a name that ends in .onnx")
    if standalone:
        raise UserError("standalone: the script runs ONNX files; leave it out, or give --format onnx")
    import_openvino()


def _check_precision(fp16: bool, int8: bool, target: str | None) -> None:
    if fp16 and int8:
        raise UserError("fp16, int8: a file has one of the two; leave out --fp16 or --int8")
    if fp16 and target:
        raise UserError("fp16: ATC computes in float16 by itself; leave out --fp16 or --for ascend")
    if int8 and target:
        raise UserError("int8: ATC quantises with its own tools; leave out --int8 or --for ascend")


def _reduction(
    detector: Detector,
    calibrate: Sequence[Picture] | None,
    batches: Sequence[tuple[Tensor, Tensor]],
    size: tuple[int, int] | None,
) -> Reduction:
    """Return the reduction to 8 bits, or to float16 if there is nothing to calibrate on."""
    data = detector.config.data
    records, reason = None, None
    try:
        records = open_split(data, "val", detector.classes)
    except UserError as error:
        reason = str(error)
    calibration = None
    if calibrate is not None:
        calibration = _batches(calibrate[:CALIBRATED_ON], data, size, other_sizes=False)
    return Reduction(calibration=calibration, batches=batches, records=records, data=data, no_records=reason)


def _batches(
    pictures: Sequence[Picture], data: DataConfig, size: tuple[int, int] | None, other_sizes: bool = True
) -> list[tuple[Tensor, Tensor]]:
    """Return pictures as batches of images and sizes, one batch for each padded shape.

    Without a ``size``, with ``other_sizes``, the first picture is there again at three quarters of its
    size, and turned a quarter: a file that takes any size must agree with PyTorch at several.
    """
    if size is not None:
        fixed = replace(data, shapes=[size], pad=None)
        return [_stack([prepare(picture, fixed) for picture in pictures])]
    prepared = [prepare(picture, data) for picture in pictures]
    if other_sizes:
        first = open_picture(pictures[0], data)
        smaller = scale_data(replace(data, shapes=None, pad=MULTIPLE), 0.75)
        prepared += [prepare(first.image, smaller), prepare(np.rot90(first.image), data)]
    by_shape: dict[tuple[int, int], list[Prepared]] = {}
    for one in prepared:
        by_shape.setdefault(one.view.shape, []).append(one)
    return [_stack(each) for each in by_shape.values()]


def _stack(pictures: Sequence[Prepared]) -> tuple[Tensor, Tensor]:
    images, sizes_b2 = stack(pictures)
    return torch.from_numpy(images), torch.from_numpy(sizes_b2)


def _check_free(path: Path) -> None:
    """Raise UserError if ``path`` is there and something else than a file's metadata."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        ours = isinstance(content, dict) and content.get("format") == FORMAT
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise UserError(f"{path}: already exists and is not an exported file; give another --out")


def _write(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1))
