"""Make the file that was asked for out of an ONNX file in float32 that equals PyTorch."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from fsaf.detection.onnx import open_onnx
from fsaf.detection.openvino import OpenVinoSession, open_openvino
from fsaf.device import HOST
from fsaf.errors import import_extra
from fsaf.exporting.check import Check, Comparison
from fsaf.exporting.openvino import save_openvino
from fsaf.exporting.reduced import ReducedReport, Reduction
from fsaf.files import temporary_folder, whole

REDUCED = "reduced"
"""Key of the metadata."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What becomes of the ONNX file: fewer bits, a file of OpenVINO, or both."""

    openvino: bool
    reduction: Reduction | None

    def __call__(self, draft: Path, path: Path, check: Check) -> Comparison | ReducedReport:
        """Replace the ONNX file ``draft`` by the converted one, and return how that compares.

        path: where the draft will be. OpenVINO's weights are written there. A file in float32 is compared
        with PyTorch, one in fewer bits with the ONNX file.
        """
        with temporary_folder("fsaf-export") as folder:
            source, made = folder / "float.onnx", folder / f"made{path.suffix}"
            shutil.copyfile(draft, source)
            found: Comparison | ReducedReport
            if self.reduction is None:
                save_openvino(source, made, False, {})
                found = check(OpenVinoSession(made, HOST))
            else:
                found = self._reduce(self.reduction, source, made, str(path))
            if self.openvino:
                with whole(path.with_suffix(".bin")) as weights:
                    shutil.copyfile(made.with_suffix(".bin"), weights)
            shutil.copyfile(made, draft)
        return found

    def _reduce(self, reduction: Reduction, source: Path, made: Path, name: str) -> ReducedReport:
        before = open_onnx(source, HOST)
        half = self.openvino and reduction.precision == "fp16"  # OpenVINO stores float16 by itself
        smaller = source if half else source.with_name("reduced.onnx")
        if not half:
            reduction.write(source, smaller, before[2])
        if self.openvino:
            save_openvino(smaller, made, half, {})
        after = open_openvino(made, HOST) if self.openvino else open_onnx(smaller, HOST)
        report = reduction.measure(before, after, source.stat().st_size / 1e6, name)
        note = json.dumps(asdict(report))
        if self.openvino:
            save_openvino(smaller, made, half, {REDUCED: note})
        else:
            _copy_with(smaller, made, note)
        return report


def _copy_with(source: Path, target: Path, note: str) -> None:
    """Copy an ONNX file with one more entry in its metadata."""
    onnx = import_extra("onnx")
    model = onnx.load(source)
    model.producer_name = "fsaf"  # onnxruntime's tools set their own
    entry = model.metadata_props.add()
    entry.key, entry.value = REDUCED, note
    onnx.save(model, target)
