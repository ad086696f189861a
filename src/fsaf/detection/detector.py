"""Detect objects in pictures, with a checkpoint or an exported file."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np

from fsaf.config import Config, PredictConfig
from fsaf.config.predict import SHOWN_SCORE
from fsaf.data.records import Classes
from fsaf.detection.classes import with_labels
from fsaf.detection.found import Found
from fsaf.detection.network import Network, is_network
from fsaf.detection.om import open_om
from fsaf.detection.onnx import open_onnx
from fsaf.detection.openvino import open_openvino
from fsaf.detection.picture import Picture, open_picture, prepare_view, split_pictures, stack
from fsaf.detection.result import Result
from fsaf.detection.saving import Saving
from fsaf.detection.views import View, from_view, merge, plan_views
from fsaf.errors import CheckpointError, UserError

# An exported file is opened and run without PyTorch, whose import takes longer than all the rest. So methods
# of checkpoints alone import what they need.
if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from fsaf.detection.postprocess import Detections
    from fsaf.model.detector import FSAF

RUNTIMES = {".onnx": open_onnx, ".om": open_om, ".xml": open_openvino}
"""Functions that open exported files, by suffix. All other files are checkpoints."""

Batch: TypeAlias = list[tuple[int, int, View]]
"""Views that run together, each after the index of its picture and its own index in that picture."""


class Detector(Saving):
    """A trained network, its classes, and the settings it was trained with.

    >>> detector = fsaf.load("runs/mine/checkpoints/best.pt")
    >>> result = detector.predict("photo.jpg", score_threshold=0.5)
    >>> for box, score, name in zip(result.boxes, result.scores, result.names):
    ...     print(name, f"{score:.2f}", box.round())

    model: an ``FSAF`` on its device, or the ``Network`` of an exported file.
    """

    def __init__(self, model: "FSAF | Network", classes: Classes, config: Config) -> None:
        self.classes = classes
        if is_network(model):
            self.network, self.config = model, config
        else:
            from fsaf.detection.torch_network import TorchNetwork

            self.network, self.config = TorchNetwork(model), replace(config, model=model.settings)

    @property
    def shown(self) -> PredictConfig:
        """The settings for detections that people look at: scores above 0.3 (``SHOWN_SCORE``).

        A higher ``predict.score_threshold`` of the detector stays. ``config.predict`` itself is for scoring:
        COCO's metrics need detections of low score too.
        """
        own = self.config.predict
        return replace(own, score_threshold=max(own.score_threshold, SHOWN_SCORE))

    def fold(self) -> None:
        """Merge the batch norms of the backbone into its convolutions, to run faster; only rounding differs.

        ``load`` does this. ``fsaf.evaluate`` does not when it opens a file: its figures are those of
        training to the last digit.
        """
        self.network.fold(True)

    def detect(
        self, images: "Tensor", sizes_b2: "Tensor", settings: PredictConfig | None = None
    ) -> "Detections":
        """Return the detections of a padded batch, in pixels of the resized images.

        images: (B, 3, H, W) uint8 RGB. sizes_b2: (B, 2) height, width of each inside its padding.
        Raises UserError if a box or score is NaN or infinite, or if ``settings.classes`` has an unknown one.
        """
        settings = with_labels(settings or self.config.predict, self.classes)
        found = self.network.detect(images, sizes_b2, settings)
        if not (found.boxes_bm4.isfinite().all() and found.scores_bm.isfinite().all()):
            raise self._not_finite()
        return found

    def _find(self, images: np.ndarray, sizes_b2: np.ndarray, settings: PredictConfig) -> list[Found]:
        """Return the detections of each image of a batch of arrays; otherwise as ``detect``."""
        found = self.network.find(images, sizes_b2, with_labels(settings, self.classes))
        if not all(np.isfinite(one.boxes).all() and np.isfinite(one.scores).all() for one in found):
            raise self._not_finite()
        return found

    def _not_finite(self) -> CheckpointError:
        return CheckpointError(
            f"{self.network.name}: computes boxes or scores that are NaN or infinite; its weights are "
            "too large or damaged"
        )

    @overload
    def predict(  # type: ignore[overload-overlap]  # a str is one picture, and a sequence of str too
        self,
        images: Picture,
        *,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        classes: Sequence[str | int] | None = None,
        class_agnostic: bool | None = None,
        scales: Sequence[float] | None = None,
        flip: bool | None = None,
        tile: int | None = None,
        tile_overlap: float | None = None,
        batch_size: int = 1,
    ) -> Result: ...

    @overload
    def predict(
        self,
        images: Sequence[Picture],
        *,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        classes: Sequence[str | int] | None = None,
        class_agnostic: bool | None = None,
        scales: Sequence[float] | None = None,
        flip: bool | None = None,
        tile: int | None = None,
        tile_overlap: float | None = None,
        batch_size: int = 1,
    ) -> list[Result]: ...

    def predict(
        self,
        images: Picture | Sequence[Picture],
        *,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        classes: Sequence[str | int] | None = None,
        class_agnostic: bool | None = None,
        scales: Sequence[float] | None = None,
        flip: bool | None = None,
        tile: int | None = None,
        tile_overlap: float | None = None,
        batch_size: int = 1,
    ) -> Result | list[Result]:
        """Detect objects; return a ``Result`` for one picture, a list of them for several.

        images: a picture (``fsaf.detection.picture.Picture``: a path, an address, bytes, a file, a Pillow
        image, an array or a tensor), a sequence of pictures, or an array (N, H, W, C) or tensor (N, C, H, W).

        score_threshold: return detections with a higher score; by default 0.3, as ``fsaf predict`` shows.
        classes: names or numbers of the classes to detect. max_detections, class_agnostic, scales, flip,
        tile, tile_overlap: replace the settings of the detector (``PredictConfig``). batch_size: pictures, or
        views of them, that run together if their padded shapes are equal.
        Raises UserError naming the file if a picture cannot be read.
        """
        pictures, one = split_pictures(images, self.config.data.max_pixels)
        given = {
            "score_threshold": score_threshold,
            "max_detections": max_detections,
            "classes": None if classes is None else [classes] if isinstance(classes, str) else list(classes),
            "class_agnostic": class_agnostic,
            "scales": None if scales is None else list(scales),
            "flip": flip,
            "tile": tile,
            "tile_overlap": tile_overlap,
        }
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        results = list(self.stream(pictures, replace(self.shown, **changes), batch_size))
        return results[0] if one else results

    def stream(
        self,
        images: Iterable[Picture],
        settings: PredictConfig | None = None,
        batch_size: int = 1,
        follow: Callable[[list[Batch]], Iterable[Batch]] = iter,
    ) -> Iterator[Result]:
        """Predict for any number of pictures; yield one result at a time, in order.

        settings: by default ``shown``; evaluation takes ``config.predict``.
        follow: an iterator over the batches of a few pictures, for showing progress.
        """
        if batch_size < 1:
            raise UserError(f"batch_size = {batch_size}: must be at least 1")
        settings = settings or self.shown
        if self.network.fixed_size and settings.scales != [1.0]:
            raise UserError(
                f"{self.network.name}: takes images of one size, so predict.scales can only be [1.0], not "
                f"{settings.scales}; take the checkpoint instead"
            )
        iterator = iter(images)
        while chunk := list(islice(iterator, batch_size)):
            yield from self._predict_chunk(chunk, settings, batch_size, follow)

    def _predict_chunk(
        self,
        pictures: list[Picture],
        settings: PredictConfig,
        batch_size: int,
        follow: Callable[[list[Batch]], Iterable[Batch]],
    ) -> list[Result]:
        data = self.config.data
        opened = [open_picture(picture, data) for picture in pictures]
        by_shape: dict[tuple[int, int], Batch] = {}
        for i, one in enumerate(opened):
            for number, view in enumerate(plan_views(one.size, data, settings)):
                by_shape.setdefault(view.shape, []).append((i, number, view))
        batches = [
            members[start : start + batch_size]
            for members in by_shape.values()
            for start in range(0, len(members), batch_size)
        ]
        parts: dict[tuple[int, int], tuple[View, Found]] = {}
        for batch in follow(batches):
            images = [prepare_view(opened[i], view, data.antialias) for i, _, view in batch]
            found = self._find(*stack(images), settings)
            for seen, (i, number, view) in zip(found, batch, strict=True):
                parts[i, number] = view, from_view(seen, view)
        results = []
        for i, one in enumerate(opened):
            of_one = [parts[key] for key in sorted(parts) if key[0] == i]
            results.append(self.result(merge(of_one, one.size, settings), one.size, one.path))
        return results

    def result(self, found: Found, size: tuple[int, int], path: str | None) -> Result:
        """Make a ``Result`` of detections in a picture of ``size`` (height, width)."""
        names = [self.classes.names[label] for label in found.labels]
        return Result(**found._asdict(), names=names, size=size, path=path)


def load(
    path: str | PathLike[str],
    device: "str | torch.device | None" = None,
    *,
    winograd: bool | None = None,
    fold: bool = True,
) -> Detector:
    """Open a checkpoint (ours, or an MMDetection FSAF: ``fsaf.checkpoints``), or an exported file.

    >>> detector = fsaf.load("runs/mine/checkpoints/best.pt")
    >>> detector = fsaf.load("model.onnx", device="cpu")
    >>> detector.predict("photo.jpg").names
    ['7', '3']

    Exported files are ``.onnx`` and, made from those, ``.xml`` (OpenVINO) and ``.om``. A checkpoint may also
    be a folder that ``fsaf publish`` wrote, or ``hf:USER/NAME`` on the Hugging Face hub.

    device: auto, cpu, cuda, npu, npu:1 and so on; by default an accelerator if there is one, else the CPU.
    winograd: compute 3x3 convolutions on a CPU by Winograd's algorithm (``fsaf.model.convolution``); None
    takes the checkpoint's key ``winograd``. fold: merge batch norms into convolutions (``Detector.fold``).
    Raises UserError if the file is missing, damaged or something else, or if the device is not there.
    """
    path = Path(path)
    if is_exported(path):
        network, classes, config = RUNTIMES[path.suffix](path, device)
    else:
        from fsaf.detection.torch_network import open_checkpoint

        network, classes, config = open_checkpoint(path, device)
    if winograd is not None:
        config = replace(config, winograd=winograd)
    if network.module is not None:
        from fsaf.model.convolution import use_winograd

        use_winograd(network.module, config.winograd)
    detector = Detector(network, classes, config)
    if fold:
        detector.fold()
    return detector


def is_exported(path: Path) -> bool:
    """Return True if a library other than PyTorch runs the file."""
    return path.suffix in RUNTIMES
