"""Run an exported file with any library: batches, padding, decoding and suppression on the host.

Shapes: N images of a run of the file, n images given, H and W of the padded images.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fsaf.boxes import clip_boxes
from fsaf.config import Config, PredictConfig, limits
from fsaf.config.data import MULTIPLE
from fsaf.detection.file_info import FileInfo, Outputs, output_names
from fsaf.detection.network import Opened
from fsaf.detection.postprocess import Candidates, Detections, find_candidates, postprocess
from fsaf.errors import CheckpointError
from fsaf.model.anchors import KINDS
from fsaf.model.outputs import AnchorOutputs, FreeOutputs, RawOutputs
from fsaf.model.points import DISTANCE_UNIT, STRIDES, make_points


class Session(Protocol):
    """An exported file made ready to run by some library."""

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
    network = DetectionsFile if info.outputs == "detections" else RawFile
    return network(session, info), info.classes, info.config


def fill_padding(images: Tensor, sizes_b2: Tensor, mean: Sequence[float]) -> Tensor:
    """Return images (n, 3, H, W) with the mean colour in their padding, which becomes 0 after normalisation.

    Exactly 0 for float images; for uint8 the nearest whole colour.
    """
    rows = torch.arange(images.shape[2], device=images.device) < sizes_b2[:, :1]
    columns = torch.arange(images.shape[3], device=images.device) < sizes_b2[:, 1:]
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    colour = torch.tensor(mean, device=images.device)[:, None, None]
    if not images.is_floating_point():
        colour = colour.round().to(images.dtype)
    return torch.where(inside, images, colour)


def prepare_inputs(
    session: Session, images: Tensor, sizes_b2: Tensor, mean: Sequence[float]
) -> tuple[Tensor, ...]:
    """Return images (n, 3, H, W) uint8 and sizes (n, 2) as the file takes them, on the CPU.

    mean: colour of the padding, for a file that takes no sizes.
    """
    images, sizes_b2 = images.cpu(), sizes_b2.cpu().long()
    if session.float_images:
        images = images.float()
    return (images, sizes_b2) if session.takes_sizes else (fill_padding(images, sizes_b2, mean),)


def run_session(
    session: Session, images: Tensor, sizes_b2: Tensor, mean: Sequence[float]
) -> tuple[Tensor, ...]:
    """Return the outputs for any number of images; the last batch of a fixed N is filled up with copies.

    Arguments as for ``prepare_inputs``.
    """
    inputs = prepare_inputs(session, images, sizes_b2, mean)
    fixed = session.input_shape[0] or len(images)
    chunks = []
    for start in range(0, len(images), fixed):
        parts = [x[start : start + fixed] for x in inputs]
        count = len(parts[0])
        if count < fixed:
            parts = [torch.cat([x, x[:1].expand(fixed - count, *x.shape[1:])]) for x in parts]
        outputs = session.run([x.contiguous().numpy() for x in parts])
        chunks.append([torch.from_numpy(x)[:count] for x in outputs])
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))


def to_raw_outputs(
    found: Sequence[Tensor], outputs: Outputs, config: Config, size: tuple[int, int]
) -> RawOutputs:
    """Return the outputs of a file without suppression level by level.

    size: (H, W). Raises ValueError if they are not as many, or not of as many locations, as the file's
    metadata says.
    """
    names = output_names(outputs, config)
    shapes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in STRIDES]
    sides = [height * width for height, width in shapes]
    values = dict(zip(names, (x.float() for x in found), strict=True))
    if "boxes" in values:
        values["distances"] = _to_distances(values.pop("boxes").transpose(1, 2), shapes)
    levels = {}
    for name, value in values.items():
        if value.shape[2:] != (sum(sides),):
            raise ValueError(f"{sum(sides)} locations are expected")
        parts = zip(value.split(sides, 2), shapes, strict=True)
        levels[name] = [part.unflatten(2, shape) for part, shape in parts]
    return RawOutputs(
        free=FreeOutputs(levels["logits"], levels["distances"]) if "logits" in levels else None,
        anchors=(
            AnchorOutputs(levels["anchor_logits"], levels["anchor_deltas"])
            if "anchor_logits" in levels
            else None
        ),
    )


def _to_distances(boxes_b4p: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
    """Undo ``decode_boxes``."""
    points = make_points(shapes, STRIDES, boxes_b4p.device)
    left, top, right, bottom = boxes_b4p.unbind(1)
    sides = (points.y - top, bottom - points.y, points.x - left, right - points.x)
    return torch.stack(sides, 1) / (points.stride * DISTANCE_UNIT)


class _File:
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

    def run(self, images: Tensor, sizes_b2: Tensor) -> tuple[Tensor, ...]:
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


class RawFile(_File):
    """A file without suppression: decoding and suppression run here, with any settings."""

    def detect(self, images: Tensor, sizes_b2: Tensor, settings: PredictConfig) -> Detections:
        """Run the file and the same post-processing as a checkpoint's."""
        return postprocess(self.outputs(images, sizes_b2), sizes_b2.cpu(), settings)

    def candidates(self, images: Tensor, sizes_b2: Tensor, settings: PredictConfig) -> Candidates:
        """Run the file and stop before suppression."""
        return find_candidates(self.outputs(images, sizes_b2), sizes_b2.cpu(), settings)

    def outputs(self, images: Tensor, sizes_b2: Tensor) -> RawOutputs:
        """Return the outputs level by level. Raises UserError if they do not fit the metadata."""
        found = self.run(images, sizes_b2)
        try:
            for x, name in zip(found, output_names(self.info.outputs, self.info.config), strict=True):
                self._check_channels(x, name)
            size = (images.shape[2], images.shape[3])
            return to_raw_outputs(found, self.info.outputs, self.info.config, size)
        except (ValueError, RuntimeError, IndexError) as error:
            shapes = ", ".join(str(list(x.shape)) for x in found)
            raise CheckpointError(
                f"{self.name}: has outputs of shapes {shapes}, which do not fit its metadata ({error}); "
                "is that another file's?"
            ) from error

    def _check_channels(self, found: Tensor, name: str) -> None:
        """Raise ValueError if an output has not one number for each class or side of a box."""
        count = {"logits": len(self.info.classes), "distances": 4, "anchor_deltas": 4 * KINDS}
        count["anchor_logits"] = KINDS * len(self.info.classes)
        side = 2 if name == "boxes" else 1
        if found.dim() != 3 or found.shape[side] != count.get(name, 4):
            raise ValueError(f"{name} need {count.get(name, 4)} numbers at each location")


class DetectionsFile(_File):
    """A file with suppression inside, whose settings are built in."""

    def detect(self, images: Tensor, sizes_b2: Tensor, settings: PredictConfig) -> Detections:
        """Run the file. Raises UserError for settings that are built in."""
        self._check(settings)
        boxes, scores, labels = self._outputs(images, sizes_b2, settings.max_detections)
        if not self.session.takes_sizes:  # the file has clipped boxes to H x W
            boxes = clip_boxes(boxes.transpose(1, 2), sizes_b2.cpu()).transpose(1, 2)
            labels = torch.where((boxes[..., 2:] > boxes[..., :2]).all(2), labels, -1)
        # Detections below a threshold never remove those above it, so cutting afterwards is the same.
        keep = (scores > settings.score_threshold) & (labels >= 0)
        if settings.classes is not None:
            keep &= torch.isin(labels, torch.tensor(settings.classes))
        return Detections(
            torch.where(keep[:, :, None], boxes, 0.0),
            torch.where(keep, scores, 0.0),
            torch.where(keep, labels, -1),
        )

    def candidates(self, images: Tensor, sizes_b2: Tensor, settings: PredictConfig) -> Candidates:
        """Run the file and return its detections; ``settings`` has no part in it."""
        found = self.detect(images, sizes_b2, self.info.config.predict)
        return Candidates(found.boxes_bm4, found.scores_bm, found.labels_bm.clamp(min=0), None)

    def _outputs(self, images: Tensor, sizes_b2: Tensor, count: int) -> list[Tensor]:
        """Return boxes, scores, labels, the first ``count``. Raises UserError if they are something else."""
        found = self.run(images, sizes_b2)
        shapes = [tuple(x.shape) for x in found]
        kept = shapes[0][1] if shapes and len(shapes[0]) == 3 else 0
        wanted = [(len(images), kept, 4), (len(images), kept), (len(images), kept)]
        if shapes != wanted or [x.is_floating_point() for x in found] != [True, True, False]:
            raise CheckpointError(
                f"{self.name}: has outputs of shapes {', '.join(map(str, map(list, shapes)))}, which are not "
                "boxes, scores and labels, as its metadata says; is that another file's?"
            )
        if (found[2] >= len(self.info.classes)).any():
            raise CheckpointError(f"{self.name}: finds more classes than its metadata names")
        return [x[:, :count] for x in found]

    def _check(self, settings: PredictConfig) -> None:
        built_in = self.info.config.predict
        same = replace(
            settings,
            score_threshold=built_in.score_threshold,
            max_detections=built_in.max_detections,
            classes=built_in.classes,
            scales=built_in.scales,  # these choose what the file is run on
            flip=built_in.flip,
            tile=built_in.tile,
            tile_overlap=built_in.tile_overlap,
        )
        if (
            same != built_in
            or settings.score_threshold < built_in.score_threshold
            or settings.max_detections > built_in.max_detections
            or not (built_in.classes is None or set(settings.classes or [-1]) <= set(built_in.classes))
        ):
            raise CheckpointError(
                f"{self.name}: was exported with {built_in}; only a higher score_threshold, fewer "
                "max_detections and some of its classes are possible; export the checkpoint again for others"
            )
