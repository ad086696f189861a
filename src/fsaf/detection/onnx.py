"""Run an exported file with onnxruntime.

Shapes: N images, H and W of the padded images, M detections of an image.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fsaf.config import PredictConfig
from fsaf.data.records import Classes
from fsaf.detection.postprocess import Detections
from fsaf.errors import UserError, import_extra
from fsaf.recipe import build_config

FORMAT = "fsaf"
VERSION = 1
"""Of the file's inputs, outputs and metadata."""


class OnnxModel:
    """A file written by ``export_onnx``, ready to run.

    Raises UserError where the file is missing, is not ONNX, was written by another program, by a newer fsaf,
    or with raw outputs.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._session = open_session(path)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.classes, self.config = _read_metadata(metadata, path)
        shape = self._session.get_inputs()[0].shape
        self.input_shape = tuple(side if isinstance(side, int) else None for side in shape)
        """N, 3, H, W of the input; None where the file takes any."""

    def __call__(self, images: Tensor, sizes_b2: Tensor, settings: PredictConfig | None = None) -> Detections:
        """Detections of (n, 3, H, W) uint8 RGB images, height and width of each inside its padding.

        Any n: a file of fixed N runs as often as needed. settings: a higher score threshold or fewer
        detections than the file's, which are built in; UserError for anything else.
        """
        height, width = self.input_shape[2:]
        if tuple(images.shape[2:]) != (height, width):
            raise UserError(
                f"{self.path}: takes images padded to {height} x {width} (height x width), "
                f"not {images.shape[2]} x {images.shape[3]}; export the checkpoint again for another size"
            )
        found = Detections(*run_session(self._session, images, sizes_b2))
        return found if settings is None else self._narrow(found, settings)

    def _narrow(self, found: Detections, settings: PredictConfig) -> Detections:
        built_in = self.config.predict
        same = replace(
            settings,
            score_threshold=built_in.score_threshold,
            max_detections=built_in.max_detections,
            scales=built_in.scales,  # these choose what the file is run on
            flip=built_in.flip,
            tile=built_in.tile,
            tile_overlap=built_in.tile_overlap,
        )
        if (
            same != built_in
            or settings.score_threshold < built_in.score_threshold
            or settings.max_detections > built_in.max_detections
        ):
            raise UserError(
                f"{self.path}: was exported with {built_in}; only a higher score_threshold or fewer "
                "max_detections can be asked of it; export the checkpoint again for others"
            )
        # Detections below a threshold never remove those above it, so cutting afterwards is the same.
        boxes, scores, labels = (x[:, : settings.max_detections] for x in found[:3] if x is not None)
        keep = scores > settings.score_threshold
        return Detections(
            torch.where(keep[:, :, None], boxes, 0.0),
            torch.where(keep, scores, 0.0),
            torch.where(keep, labels, -1),
        )


def open_session(path: Path) -> Any:
    """An onnxruntime session on the CPU. Raises UserError where ``path`` is missing or not ONNX."""
    onnxruntime = import_extra("onnxruntime")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds have no common public parent
        reason = str(error).split("\n")[0]
        raise UserError(f"{path}: onnxruntime cannot open it as an ONNX file ({reason})") from error


def run_session(session: Any, images: Tensor, sizes_b2: Tensor) -> tuple[Tensor, ...]:
    """The outputs for any number of images; the last of a fixed batch is filled up with copies."""
    first, second = session.get_inputs()
    fixed = first.shape[0] if isinstance(first.shape[0], int) else len(images)
    if first.type == "tensor(float)":
        images = images.float()
    chunks = []
    for chunk, sizes in zip(images.split(fixed), sizes_b2.long().split(fixed), strict=True):
        count = len(chunk)
        if count < fixed:
            chunk = torch.cat([chunk, chunk[:1].expand(fixed - count, -1, -1, -1)])
            sizes = torch.cat([sizes, sizes[:1].expand(fixed - count, -1)])
        outputs = session.run(None, {first.name: chunk.cpu().numpy(), second.name: sizes.cpu().numpy()})
        chunks.append([torch.from_numpy(x)[:count] for x in outputs])
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))


def _read_metadata(metadata: dict[str, str], path: Path) -> tuple[Classes, Any]:
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path}: not written by `fsaf export` (it carries no classes and config of ours)")
    try:
        version = int(metadata["version"])
        raw = metadata["outputs"] == "raw"
        classes = json.loads(metadata["classes"])
        names, ids = tuple(map(str, classes["names"])), tuple(map(int, classes["ids"]))
        config = json.loads(metadata["config"])
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: its metadata is damaged ({error!r}); export it again") from error
    if version > VERSION:
        raise UserError(f"{path}: written by a newer fsaf (format {version}); upgrade fsaf")
    if raw:
        raise UserError(
            f"{path}: a raw export, without decoding and suppression; export without --raw to predict with it"
        )
    if len(names) != len(ids):
        raise UserError(f"{path}: its metadata is damaged ({len(names)} names, {len(ids)} ids); export again")
    return Classes(names=names, ids=ids), build_config(config, where=str(path))
