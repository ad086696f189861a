"""Run an exported file with suppression inside, without PyTorch.

Shapes: n images, H and W of the padded images, M detections.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fsaf.config import PredictConfig
from fsaf.detection.exported import ExportedFile
from fsaf.detection.found import Found
from fsaf.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from fsaf.detection.postprocess import Candidates, Detections


class DetectionsFile(ExportedFile):
    """A file with suppression inside, whose settings are built in."""

    def find(self, images: np.ndarray, sizes_b2: np.ndarray, settings: PredictConfig) -> list[Found]:
        """Run the file. Raises UserError for settings that are built in."""
        arrays = zip(*self._detect(images, sizes_b2, settings), strict=True)
        return [
            Found(boxes[labels >= 0], scores[labels >= 0], labels[labels >= 0], None)
            for boxes, scores, labels in arrays
        ]

    def detect(self, images: "Tensor", sizes_b2: "Tensor", settings: PredictConfig) -> "Detections":
        """Return the same as tensors."""
        import torch

        from fsaf.detection.postprocess import Detections

        arrays = self._detect(images.cpu().numpy(), sizes_b2.cpu().numpy(), settings)
        return Detections(*(torch.from_numpy(x) for x in arrays))

    def candidates(self, images: "Tensor", sizes_b2: "Tensor", settings: PredictConfig) -> "Candidates":
        """Run the file and return its detections; ``settings`` has no part in it."""
        from fsaf.detection.postprocess import Candidates

        found = self.detect(images, sizes_b2, self.info.config.predict)
        return Candidates(found.boxes_bm4, found.scores_bm, found.labels_bm.clamp(min=0), None)

    def _detect(
        self, images: np.ndarray, sizes_b2: np.ndarray, settings: PredictConfig
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return boxes (n, M, 4), scores (n, M), labels (n, M); 0, 0 and -1 as padding."""
        self._check(settings)
        boxes, scores, labels = self._outputs(images, sizes_b2, settings.max_detections)
        if not self.session.takes_sizes:  # the file has clipped boxes to H x W
            limits_b4 = np.tile(sizes_b2[:, ::-1], 2).astype(boxes.dtype)
            boxes = np.minimum(boxes.clip(min=0), limits_b4[:, None])
            labels = np.where((boxes[..., 2:] > boxes[..., :2]).all(2), labels, -1)
        # Detections below a threshold never remove those above it, so cutting afterwards is the same.
        keep = (scores > settings.score_threshold) & (labels >= 0)
        if settings.classes is not None:
            keep &= np.isin(labels, settings.classes)
        return (
            np.where(keep[:, :, None], boxes, np.float32(0)),
            np.where(keep, scores, np.float32(0)),
            np.where(keep, labels, -1),
        )

    def _outputs(self, images: np.ndarray, sizes_b2: np.ndarray, count: int) -> list[np.ndarray]:
        """Return boxes, scores, labels, the first ``count``. Raises UserError if they are something else."""
        found = self.run(images, sizes_b2)
        shapes = [tuple(x.shape) for x in found]
        kept = shapes[0][1] if shapes and len(shapes[0]) == 3 else 0
        wanted = [(len(images), kept, 4), (len(images), kept), (len(images), kept)]
        if shapes != wanted or [x.dtype.kind == "f" for x in found] != [True, True, False]:
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
