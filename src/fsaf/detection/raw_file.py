"""Run an exported file without suppression: boxes are decoded and suppressed here, by PyTorch.

Shapes: n images, H and W of the padded images.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fsaf.config import Config, PredictConfig
from fsaf.detection.exported import ExportedFile
from fsaf.detection.file_info import Outputs, output_names
from fsaf.detection.found import Found
from fsaf.detection.postprocess import Candidates, Detections, find_candidates, postprocess
from fsaf.errors import CheckpointError
from fsaf.model.anchors import KINDS
from fsaf.model.outputs import AnchorOutputs, FreeOutputs, RawOutputs
from fsaf.model.points import DISTANCE_UNIT, STRIDES, make_points


class RawFile(ExportedFile):
    """A file without suppression: decoding and suppression run here, with any settings."""

    def find(self, images: np.ndarray, sizes_b2: np.ndarray, settings: PredictConfig) -> list[Found]:
        """Return the detections of each image as arrays."""
        return self.detect(torch.from_numpy(images), torch.from_numpy(sizes_b2), settings).rows()

    @torch.inference_mode()
    def detect(self, images: Tensor, sizes_b2: Tensor, settings: PredictConfig) -> Detections:
        """Run the file and the same post-processing as a checkpoint's."""
        return postprocess(self.outputs(images, sizes_b2), sizes_b2.cpu(), settings)

    def candidates(self, images: Tensor, sizes_b2: Tensor, settings: PredictConfig) -> Candidates:
        """Run the file and stop before suppression."""
        return find_candidates(self.outputs(images, sizes_b2), sizes_b2.cpu(), settings)

    def outputs(self, images: Tensor, sizes_b2: Tensor) -> RawOutputs:
        """Return the outputs level by level. Raises UserError if they do not fit the metadata."""
        found = [torch.from_numpy(x) for x in self.run(images.cpu().numpy(), sizes_b2.cpu().numpy())]
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
