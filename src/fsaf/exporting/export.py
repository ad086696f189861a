"""Write a detector as an ONNX file, check it on pictures, and note both beside it."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from fsaf.data.shapes import round_up
from fsaf.detection.detector import Detector
from fsaf.detection.file_info import FORMAT, make_metadata
from fsaf.detection.picture import Picture, prepare, stack
from fsaf.errors import UserError
from fsaf.exporting.ascend import ascend_options, check_operators
from fsaf.exporting.onnx import ExportReport, export_onnx
from fsaf.files import write_text
from fsaf.text import parse_json


def export_detector(
    detector: Detector,
    path: Path,
    pictures: Sequence[Picture],
    *,
    size: tuple[int, int] | None = None,
    target: Literal["ascend"] | None = None,
    **options: Any,
) -> ExportReport:
    """Write ``detector`` to ``path``, check it on ``pictures``, and note both in ``export.json`` beside it.

    size: (H, W) that images are padded to; by default the first of the recipe's batch shapes. target: for
    ``ascend`` the file is one that ATC reads (``fsaf.exporting.ascend``), and instead of ``export.json`` a
    JSON file of its name holds what an OM file made of it needs. options: of ``export_onnx``.
    Raises UserError if the file and PyTorch disagree; no file is left then.
    """
    model, config = detector.model, detector.config
    if not pictures:
        raise UserError("there is no picture to check the file on; give some with --images")
    if target == "ascend":
        options = {**ascend_options(options), "check_graph": check_operators}
        _check_free(path.with_suffix(".json"))
    if size is None:
        shapes = config.data.shapes
        size = shapes[0] if shapes else (round_up(config.data.short_side), round_up(config.data.long_side))
    fixed = replace(config.data, shapes=[size], pad=None)
    images, sizes = stack([prepare(picture, fixed) for picture in pictures])
    report = export_onnx(
        model, detector.classes, config, path, size=size, images=images, sizes_b2=sizes, **options
    )
    note = {"file": path.name, "size": list(size)} | dataclasses.asdict(report)
    del note["path"]
    if target is None:
        _write(path.with_name("export.json"), note)
        return report
    own = replace(config, model=model.settings)
    metadata = make_metadata(detector.classes, own, size, options["outputs"], fixed_size=True)
    images_type = "float32" if options["float_images"] else "uint8"
    inputs = {"images": {"shape": report.input_shape, "type": images_type}}
    _write(path.with_suffix(".json"), metadata | {"inputs": inputs, "export": note})
    return report


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
