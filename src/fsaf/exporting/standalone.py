"""A script beside an exported file that runs it with numpy, Pillow and onnxruntime alone."""

from pathlib import Path

from fsaf.config import PredictConfig
from fsaf.detection.file_info import Outputs
from fsaf.errors import UserError
from fsaf.files import write_text

TEMPLATE = Path(__file__).parent / "templates" / "predict.py.txt"


def script_path(path: Path) -> Path:
    """Return the path of the script of an exported file: ``model_predict.py`` for ``model.onnx``."""
    return path.with_name(f"{path.stem}_predict.py")


def check_standalone(path: Path, outputs: Outputs, settings: PredictConfig) -> None:
    """Raise UserError if a script cannot stand for the detector, or if its place is taken by another file."""
    if outputs != "detections":
        raise UserError("standalone: the script needs suppression inside the file; leave out --raw and --for")
    if not settings.is_plain():
        raise UserError(
            "standalone: the script looks at each picture once; leave out predict.scales, predict.flip and "
            "predict.tile"
        )
    script = script_path(path)
    if script.exists() and not (script.is_file() and script.read_bytes()[:25] == TEMPLATE.read_bytes()[:25]):
        raise UserError(f"{script}: already exists and is not a script of --standalone; give another --out")


def write_script(path: Path) -> Path:
    """Write the script of the exported file ``path`` and return its path.

    It finds all else in the file: sizes, classes, what is done to a picture.
    """
    script = script_path(path)
    write_text(script, TEMPLATE.read_text(encoding="utf-8"))
    return script
