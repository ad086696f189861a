"""Open an OM file, which ATC has compiled for an Ascend NPU, with Ascend's ais_bench.

The file itself says nothing of classes and config: they are in the JSON file of its name, which
``fsaf export --for ascend`` has written. Raw outputs come back, and the host decodes and suppresses them.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fsaf.detection.file_info import FileInfo, read_info
from fsaf.detection.network import Opened
from fsaf.detection.opening import open_exported
from fsaf.device import find_npu
from fsaf.errors import CheckpointError, UserError
from fsaf.text import parse_json

if TYPE_CHECKING:
    import torch

TOOL = "https://github.com/Ascend/tools/tree/master/ais-bench_workload/tool/ais_bench"


class OmSession:
    """A session of ais_bench. Raises UserError if it cannot open the file, or not on the device."""

    runtime = "ais_bench"
    takes_sizes = False

    def __init__(self, path: Path, device: str, inputs: dict[str, Any]) -> None:
        """inputs: shape and type of the images, as the JSON file has them."""
        self.path = path
        self.device, number = find_npu(device)
        try:
            shape, kind = inputs["images"]["shape"], inputs["images"]["type"]
            batch, channels, height, width = map(int, shape)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path.with_suffix('.json')}: shape and type of the images are missing; export again with "
                "--for ascend"
            ) from error
        self.input_shape: tuple[int | None, ...] = (batch, channels, height, width)
        self.float_images = kind == "float32"
        open_session = _import_session(path)
        try:
            self._session = open_session(number, str(path))
            found = [list(node.shape) for node in self._session.get_inputs()]
        except Exception as error:  # of aclruntime, which says what CANN says
            reason = str(error).strip().split("\n")[0]
            raise CheckpointError(f"{path}: ais_bench cannot open it on {self.device} ({reason})") from error
        if found != [list(self.input_shape)]:
            raise CheckpointError(
                f"{path}: takes inputs of shapes {found}, and not {list(self.input_shape)}, as "
                f"{path.with_suffix('.json').name} says; is that another file's?"
            )

    def run(self, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Run the file once."""
        return self._session.infer(list(inputs))


def open_om(path: Path, device: "str | torch.device | None" = None) -> Opened:
    """Open an OM file with the JSON file beside it.

    device: auto or npu, perhaps with a number; None is ``auto``. Raises UserError if a file is missing or
    damaged, if ais_bench is not installed, or if the device is not there.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    content = _read_json(path.with_suffix(".json"))
    info: FileInfo = read_info(content, path.with_suffix(".json"))
    session = OmSession(path, str(device or "auto"), content.get("inputs") or {})
    return open_exported(session, info)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: no such file; an OM file needs it: copy the JSON file that `fsaf export --for ascend` "
            "has written to this name"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as JSON ({error}); export again with --for ascend"
        ) from error
    return content if isinstance(content, dict) else {}


def _import_session(path: Path) -> Any:
    try:
        return importlib.import_module("ais_bench.infer.interface").InferSession
    except ImportError as error:
        raise UserError(
            f"{path}: OM files need Ascend's packages ais_bench and aclruntime ({error}); install them from "
            f"{TOOL}, or take the ONNX file"
        ) from error
