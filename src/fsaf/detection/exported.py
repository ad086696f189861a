"""Run an exported file with any library: batches and padding on the host, without PyTorch.

``detections_file.py`` and, with PyTorch, ``raw_file.py`` make detections of the outputs.
Shapes: N images of a run of the file, n images given, H and W of the padded images.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from fsaf.config.data import MULTIPLE
from fsaf.detection.file_info import FileInfo
from fsaf.errors import CheckpointError


class Session(Protocol):
    """An exported file made ready to run by some library."""

    runtime: str
    """Name of the library."""
    path: Path
    device: str
    input_shape: tuple[int | None, ...]
    """N, 3, H, W of the images; None for what is free."""
    float_images: bool
    """Images are float32 0..255 instead of uint8."""
    takes_sizes: bool
    """The second input is the size of each image inside its padding. Otherwise all images fill H x W."""

    def run(self, inputs: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """Run the file once, on N images. Inputs and outputs are in the order of the file's."""


def read_inputs(
    path: Path, inputs: Sequence[tuple[str, list[int | None]]], types: tuple[str, str, str]
) -> tuple[tuple[int | None, ...], bool, bool]:
    """Return ``input_shape``, ``float_images`` and ``takes_sizes`` of a ``Session`` from the file's inputs.

    inputs: type and shape of each. types: the library's names of uint8, float32 and int64.
    Raises CheckpointError if ``fsaf export`` writes no such inputs.
    """
    whole, real, sizes = types
    kinds = [kind for kind, _ in inputs]
    known = kinds[:1] in ([whole], [real]) and kinds[1:] in ([], [sizes])
    if not known or len(inputs[0][1]) != 4 or (len(inputs) == 2 and inputs[1][1][1:] != [2]):
        listed = ", ".join(f"{kind} {shape}" for kind, shape in inputs)
        raise CheckpointError(
            f"{path}: takes {listed or 'nothing'}; files of `fsaf export` take images (N, 3, H, W), uint8 or "
            "float, and perhaps their sizes (N, 2), int64"
        )
    return tuple(inputs[0][1]), kinds[0] == real, len(inputs) == 2


def fill_padding(images: np.ndarray, sizes_b2: np.ndarray, mean: Sequence[float]) -> np.ndarray:
    """Return images (n, 3, H, W) with the mean colour in their padding, which becomes 0 after normalisation.

    Exactly 0 for float images; for uint8 the nearest whole colour.
    """
    rows = np.arange(images.shape[2]) < sizes_b2[:, :1]
    columns = np.arange(images.shape[3]) < sizes_b2[:, 1:]
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    colour = np.array(mean, np.float32)[:, None, None]
    return np.where(inside, images, colour if images.dtype.kind == "f" else np.rint(colour).astype(np.uint8))


def prepare_inputs(
    session: Session, images: ArrayLike, sizes_b2: ArrayLike, mean: Sequence[float]
) -> tuple[np.ndarray, ...]:
    """Return images (n, 3, H, W) uint8 and sizes (n, 2) as the file takes them.

    images, sizes_b2: arrays, or tensors on the CPU. mean: colour of the padding, for a file without sizes.
    """
    pixels, sizes = np.asarray(images), np.asarray(sizes_b2, np.int64)
    if session.float_images:
        pixels = pixels.astype(np.float32)
    return (pixels, sizes) if session.takes_sizes else (fill_padding(pixels, sizes, mean),)


def run_session(
    session: Session, images: ArrayLike, sizes_b2: ArrayLike, mean: Sequence[float]
) -> tuple[np.ndarray, ...]:
    """Return the outputs for any number of images; the last batch of a fixed N is filled up with copies.

    Arguments as for ``prepare_inputs``.
    """
    inputs = prepare_inputs(session, images, sizes_b2, mean)
    total = len(inputs[0])
    fixed = session.input_shape[0] or total
    chunks = []
    for start in range(0, total, fixed):
        parts = [x[start : start + fixed] for x in inputs]
        count = len(parts[0])
        if count < fixed:
            parts = [np.concatenate([x, *[x[:1]] * (fixed - count)]) for x in parts]
        outputs = session.run([np.ascontiguousarray(x) for x in parts])
        chunks.append([x[:count] for x in outputs])
    return tuple(np.concatenate(parts) for parts in zip(*chunks, strict=True))


class ExportedFile:
    """Base of the networks of exported files, with and without suppression inside."""

    module = None

    def __init__(self, session: Session, info: FileInfo) -> None:
        self.session, self.info = session, info

    @property
    def name(self) -> str:
        """Path of the file."""
        return str(self.session.path)

    @property
    def device(self) -> str:
        """Device that runs it."""
        return self.session.device

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """(H, W) of its images; None if it takes any multiples of 32."""
        return self.info.size

    def fold(self, folded: bool) -> None:
        """Do nothing."""

    def run(self, images: np.ndarray, sizes_b2: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the file's outputs. Raises UserError for images of another size."""
        height, width = images.shape[2:]
        if self.fixed_size is not None and self.fixed_size != (height, width):
            raise CheckpointError(
                f"{self.name}: takes images padded to {self.fixed_size[0]} x {self.fixed_size[1]} (height x "
                f"width), not {height} x {width}; export the checkpoint again for another size, or for any"
            )
        if height % MULTIPLE or width % MULTIPLE:
            raise CheckpointError(
                f"{self.name}: takes images padded to multiples of {MULTIPLE}, not to {height} x {width}"
            )
        return run_session(self.session, images, sizes_b2, self.info.config.model.mean_colour)
