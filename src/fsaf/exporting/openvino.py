"""Write an exported ONNX file as a file of OpenVINO."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsaf.detection.file_info import FORMAT
from fsaf.errors import UserError, import_extra


def save_openvino(source: Path, target: Path, half: bool, notes: Mapping[str, str]) -> None:
    """Write the ONNX file ``source`` as ``target`` and, beside it, its weights with the suffix ``.bin``.

    half: store weights in float16. notes: metadata beside that of the source, all below ``fsaf`` in the
    file's ``rt_info``. Raises UserError if OpenVINO is not installed or cannot convert the file.
    """
    openvino = import_openvino()
    onnx = import_extra("onnx")
    properties = onnx.load(source, load_external_data=False).metadata_props
    try:
        # Not `convert_model`, which reports to Intel that it was used.
        model = openvino.Core().read_model(source)
    except RuntimeError as error:
        raise UserError(f"openvino: cannot convert the graph ({str(error).strip()[-300:]})") from error
    for key, value in {**{x.key: x.value for x in properties}, **notes}.items():
        model.set_rt_info(value, [FORMAT, key])
    openvino.save_model(model, target, compress_to_fp16=half)


def import_openvino() -> Any:
    """Return the package. Raises UserError if it is absent."""
    return import_extra("openvino", "openvino", "OpenVINO files need")
