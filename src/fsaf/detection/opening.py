"""The network of an exported file that some library has opened."""

from fsaf.config import limits
from fsaf.detection.detections_file import DetectionsFile
from fsaf.detection.exported import Session
from fsaf.detection.file_info import FileInfo
from fsaf.detection.network import Opened
from fsaf.errors import CheckpointError


def open_exported(session: Session, info: FileInfo) -> Opened:
    """Return the network, classes and config of an exported file.

    Raises UserError if the images that the file takes are not those of its metadata, or beyond
    ``fsaf.config.limits``.
    """
    shape = session.input_shape
    if len(shape) != 4 or shape[1] != 3 or tuple(shape[2:]) != (info.size or (None, None)):
        wanted = "any size" if info.size is None else " x ".join(map(str, info.size))
        raise CheckpointError(
            f"{session.path}: takes images of shape {list(shape)}, which do not fit its metadata, {wanted}; "
            "is that another file's?"
        )
    if not 1 <= (1 if shape[0] is None else shape[0]) <= limits.BATCH:
        raise CheckpointError(f"{session.path}: runs {shape[0]} images; 1 to {limits.BATCH} are possible")
    if info.outputs == "detections":
        return DetectionsFile(session, info), info.classes, info.config
    from fsaf.detection.raw_file import RawFile  # late: it needs PyTorch

    return RawFile(session, info), info.classes, info.config
