"""Open an exported file with onnxruntime, on the CPU or by the execution provider of an accelerator."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fsaf.detection.exported import read_inputs
from fsaf.detection.file_info import read_info
from fsaf.detection.network import Opened
from fsaf.detection.opening import open_exported
from fsaf.device import find_provider
from fsaf.errors import CheckpointError, import_extra

if TYPE_CHECKING:
    import torch

TYPES = ("tensor(uint8)", "tensor(float)", "tensor(int64)")
"""onnxruntime's names of the types of inputs."""
NUMBERS = (np.float32, np.int64)


class OnnxSession:
    """A session of onnxruntime. Raises UserError if it cannot open the file, or not on the device."""

    runtime = "onnxruntime"

    def __init__(self, path: Path, device: str = "auto") -> None:
        onnxruntime = import_extra("onnxruntime")
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file")
        chosen = find_provider(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            # No fallback: it prints the error, goes on with the CPU, and reports nothing.
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=chosen.options, enable_fallback=0
            )
        except Exception as error:  # onnxruntime's own kinds have no common public parent
            reason = str(error).split("\n")[0][-200:]
            raise CheckpointError(
                f"{path}: onnxruntime cannot open it on {chosen.device} ({reason})"
            ) from error
        if self._session.get_providers()[0] != chosen.name:  # it only warns, and leaves all to the CPU
            raise CheckpointError(
                f"{path}: onnxruntime cannot open it on {chosen.device}: its {chosen.name} does not start. "
                f"Its warning names what {chosen.package} lacks; or give --device cpu"
            )
        self.path, self.device = path, chosen.device
        inputs = [
            (x.type, [side if isinstance(side, int) else None for side in x.shape])
            for x in self._session.get_inputs()
        ]
        self.input_shape, self.float_images, self.takes_sizes = read_inputs(path, inputs, TYPES)
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def run(self, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Run the file once. Raises UserError if it fails, or if an output is no tensor of numbers."""
        names = [x.name for x in self._session.get_inputs()]
        try:
            found = self._session.run(None, dict(zip(names, inputs, strict=True)))
        except Exception as error:  # of onnxruntime, as above
            reason = str(error).split("\n")[0][-200:]
            raise CheckpointError(f"{self.path}: onnxruntime cannot run it ({reason})") from error
        for x in found:
            if not isinstance(x, np.ndarray) or x.dtype not in NUMBERS or x.shape[:1] != (len(inputs[0]),):
                raise CheckpointError(
                    f"{self.path}: has an output that is no tensor of float32 or int64 with a row an image"
                )
        return found


def open_onnx(path: Path, device: "str | torch.device | None" = None) -> Opened:
    """Open a file written by ``export_onnx``.

    device: auto, cpu, cuda or npu, perhaps with a number; None is ``auto``. Raises UserError if the file is
    missing, is not ONNX, was written by another program or a newer fsaf, or if the device is not there.
    """
    session = OnnxSession(path, str(device or "auto"))
    return open_exported(session, read_info(session.metadata, path))
