"""ONNX files: writing, checking, running."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fsaf.data.shapes import round_up
from fsaf.detection.detector import Detector
from fsaf.detection.picture import Picture, prepare, stack
from fsaf.errors import UserError
from fsaf.exporting.onnx import ExportReport, export_onnx
from fsaf.files import write_text


def export_detector(
    detector: Detector,
    path: Path,
    pictures: Sequence[Picture],
    *,
    size: tuple[int, int] | None = None,
    **options: Any,
) -> ExportReport:
    """Write ``detector`` to ``path``, check it on ``pictures``, and note both in ``export.json`` beside it.

    size: (H, W) that images are padded to; by default the first of the recipe's batch shapes. options: of
    ``export_onnx``. Raises UserError if the file and PyTorch disagree; no file is left then.
    """
    model = detector.model
    if not pictures:
        raise UserError("there is no picture to check the file on; give some with --images")
    data = detector.config.data
    if size is None:
        size = data.shapes[0] if data.shapes else (round_up(data.short_side), round_up(data.long_side))
    fixed = replace(data, shapes=[size], pad=None)
    images, sizes = stack([prepare(picture, fixed) for picture in pictures])
    report = export_onnx(
        model,
        detector.classes,
        detector.config,
        path,
        size=size,
        images=images,
        sizes_b2=sizes,
        **options,
    )
    note = {"file": path.name, "size": list(size)} | dataclasses.asdict(report)
    del note["path"]
    where = path.with_name("export.json")
    try:
        write_text(where, json.dumps(note, indent=1))
    except OSError as error:
        raise UserError(f"{where}: cannot write the file ({error})") from error
    return report
