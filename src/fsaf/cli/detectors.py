"""Choose and open a detector, with settings from the command line."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fsaf.errors import UserError
from fsaf.text import printable

if TYPE_CHECKING:
    import torch

    from fsaf.detection.detector import Detector


CHECKPOINT = "file, run folder, or name (`fsaf models`); by default that of the newest run in runs/"
"""Help for the argument CHECKPOINT."""


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the argument CHECKPOINT, which ``choose`` reads."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", nargs="?", help=CHECKPOINT)


def choose(given: str | None, runs: Path = Path("runs")) -> str:
    """Return the checkpoint to open: of a run folder its ``best.pt``, else ``last.pt``.

    given: None for the newest run in ``runs``; prints what was taken then.
    Raises UserError if nothing is given and ``runs`` holds no run.
    """
    from fsaf.detection.detector import is_exported

    if given is not None and is_exported(Path(given)):
        return given
    from fsaf.checkpoints.any_format import is_remote, local  # late: it imports PyTorch

    if given is not None:
        path = Path(given)
        return given if is_remote(path) or not path.is_dir() else str(local(path))
    files = [path for name in ("best.pt", "last.pt") for path in runs.glob(f"*/checkpoints/{name}")]
    if not files:
        raise UserError(
            f"no CHECKPOINT given, and no run in {runs}; give a file, a run folder, or a name that `fsaf "
            "models` lists"
        )
    newest = max(files, key=lambda path: path.stat().st_mtime).parents[1]
    chosen = local(newest)
    print(f"note: takes {printable(chosen)}, of the newest run", file=sys.stderr)
    return str(chosen)


def looks_like_pictures(word: str) -> bool:
    """Return True for a picture, a video, a folder, a pattern, a camera or an address, but no checkpoint."""
    from fsaf.annotation.addresses import scheme_of
    from fsaf.annotation.video import VIDEO_SUFFIXES, camera_number
    from fsaf.data.decode import IMAGE_SUFFIXES

    path = Path(word)
    if path.is_dir():
        from fsaf.checkpoints.hub import CONFIG  # it imports PyTorch

        return not (path / "checkpoints").is_dir() and not (path / CONFIG).is_file()
    named = path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES
    other = word == "-" or scheme_of(word) or camera_number(word) is not None
    return bool(named or other or any(sign in word for sign in "*?["))


def open_detector(
    checkpoint: str,
    overrides: Sequence[str],
    device: "torch.device | str | None" = None,
    fold: bool = True,
) -> "Detector":
    """Open a checkpoint or exported file; ``overrides`` replace its settings of data and post-processing.

    fold: as for ``fsaf.load``.
    """
    from fsaf.config import to_dict
    from fsaf.detection.detector import load
    from fsaf.recipe import build_config

    detector = load(checkpoint, device, fold=False)
    detector.config = build_config(to_dict(detector.config), overrides, where=checkpoint)
    if detector.network.module is not None:
        from fsaf.model.convolution import use_winograd

        use_winograd(detector.network.module, detector.config.winograd)
    if fold:
        detector.fold()
    return detector
