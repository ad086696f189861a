"""Find, by convention, the files of a run and the files made from a checkpoint."""

from pathlib import Path

from fsaf.checkpoints.any_format import is_remote


def is_file(checkpoint: Path) -> bool:
    """Return False for a folder, and for what is downloaded by name; the file need not exist."""
    return not checkpoint.is_dir() and not is_remote(checkpoint)


def in_run_folder(checkpoint: Path) -> bool:
    """Return True for ``RUN/checkpoints/FILE``."""
    return checkpoint.parent.name == "checkpoints"


def run_folder(checkpoint: Path) -> Path:
    """Return the run folder of a checkpoint; for a checkpoint outside of one, the folder that it is in."""
    return checkpoint.parent.parent if in_run_folder(checkpoint) else checkpoint.parent


def beside(checkpoint: Path, suffix: str) -> Path:
    """Return the default path of a file made from a checkpoint: its name with another suffix, beside it.

    For a checkpoint that is downloaded by name, the path is in the working directory.
    """
    if is_remote(checkpoint):
        return Path(Path(checkpoint.as_posix().partition("@")[0]).name + suffix)
    name = checkpoint.name if checkpoint.is_dir() else checkpoint.stem
    return checkpoint.with_name(name + suffix)
