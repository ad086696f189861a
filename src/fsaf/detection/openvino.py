"""Open a file of OpenVINO, ``.xml`` with its ``.bin``, on the CPU or an Intel GPU."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fsaf.detection.exported import read_inputs
from fsaf.detection.file_info import FORMAT, read_info
from fsaf.detection.network import Opened
from fsaf.detection.opening import open_exported
from fsaf.device import find_openvino
from fsaf.errors import CheckpointError, import_extra

if TYPE_CHECKING:
    import torch

TYPES = ("u8", "f32", "i64")
"""OpenVINO's names of the types of inputs."""
SETTINGS = {"INFERENCE_PRECISION_HINT": "f32"}
"""By default OpenVINO computes in bfloat16 where the processor can, and scores differ by a hundredth."""


class OpenVinoSession:
    """A model of OpenVINO. Raises UserError if it cannot open the file, or not on the device."""

    runtime = "OpenVINO"

    def __init__(self, path: Path, device: str = "auto") -> None:
        openvino = import_extra("openvino", "openvino", "OpenVINO files need")
        self.path = path
        self.device, plugin = find_openvino(device)
        _check_file(path)
        try:
            core = openvino.Core()
            model = core.read_model(path)
            self._compiled = core.compile_model(model, plugin, SETTINGS)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path}: OpenVINO cannot open it on {self.device} ({_reason(error)})"
            ) from error
        inputs = [(x.element_type.get_type_name(), _sides(x.partial_shape)) for x in model.inputs]
        self.input_shape, self.float_images, self.takes_sizes = read_inputs(path, inputs, TYPES)
        self.metadata = _metadata(model)
        self._own = threading.local()

    def run(self, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Run the file once. Raises UserError if it fails."""
        if not hasattr(self._own, "request"):  # a request serves one thread at a time
            self._own.request = self._compiled.create_infer_request()
        try:
            return list(self._own.request.infer(list(inputs)).values())
        except RuntimeError as error:
            raise CheckpointError(f"{self.path}: OpenVINO cannot run it ({_reason(error)})") from error


def open_openvino(path: Path, device: "str | torch.device | None" = None) -> Opened:
    """Open a file written by ``fsaf export --format openvino``.

    device: auto, cpu or xpu, perhaps with a number; None is ``auto``, the CPU. Raises UserError if a file is
    missing or damaged, was written by another program or a newer fsaf, or if the device is not there.
    """
    session = OpenVinoSession(path, str(device or "auto"))
    return open_exported(session, read_info(session.metadata, path))


def _check_file(path: Path) -> None:
    """Raise UserError if a file is missing or plainly another: OpenVINO tries all formats that it knows."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    with path.open("rb") as file:
        if b"<net " not in file.read(1000):
            raise CheckpointError(f"{path}: not a model of OpenVINO (it has no <net>)")
    if not path.with_suffix(".bin").is_file():
        raise CheckpointError(
            f"{path.with_suffix('.bin')}: no such file; {path.name} needs it, with its weights: copy both"
        )


def _metadata(model: Any) -> dict[str, str]:
    """Return what fsaf has written into a model; empty if it has not."""
    if not model.has_rt_info([FORMAT]):
        return {}
    found = model.get_rt_info([FORMAT]).value
    return {name: str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _sides(shape: Any) -> list[int | None]:
    """Return the sides of a shape; None for what is free."""
    known = [] if shape.rank.is_dynamic else shape
    return [side.get_length() if side.is_static else None for side in known]


def _reason(error: Exception) -> str:
    """Return the last line of a message, which says what is wrong; those before name OpenVINO's sources."""
    return str(error).strip().split("\n")[-1][-200:]
