"""Public functions that take files and folders: a checkpoint for a detector, a folder for a data set."""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Literal

from fsaf.checking.survey import survey
from fsaf.checking.text import SplitFindings, check_result
from fsaf.config import Config, DataConfig, SplitConfig
from fsaf.data.readers import splits
from fsaf.detection.detector import Detector, load
from fsaf.detection.picture import Picture
from fsaf.exporting.export import export_detector
from fsaf.exporting.onnx import ExportReport
from fsaf.scoring.evaluate import evaluate as evaluate_records
from fsaf.scoring.metrics import Metrics


def evaluate(
    detector: Detector | str | PathLike[str], data: str | PathLike[str] | DataConfig | None = None
) -> Metrics:
    """Score a detector on a validation split with COCO's metrics; return them by name, ``AP`` first.

    >>> fsaf.evaluate("runs/mine/checkpoints/best.pt", "DATA")["AP50"]
    0.84

    detector: a ``Detector``, or anything that ``fsaf.load`` opens. data: the folder of a data set, or the
    section ``data`` of a ``Config``; by default the data that the detector was trained on.
    Raises UserError for data that training would refuse, or that has other classes.
    """
    detector = _opened(detector)
    settings = _data(detector.config.data, data)
    records = splits.open_split(settings, "val", detector.classes)
    splits.check_images(records, settings)
    metrics, _ = evaluate_records(detector, records, settings)
    return metrics


def export(
    detector: Detector | str | PathLike[str],
    path: str | PathLike[str],
    images: Sequence[Picture] | None = None,
    *,
    size: tuple[int, int] | None = None,
    target: Literal["ascend"] | None = None,
    batch: int = 1,
    dynamic_batch: bool = False,
    opset: int | None = None,
    outputs: Literal["detections", "raw"] = "detections",
    float_images: bool | None = None,
    fixed_size: bool = False,
) -> ExportReport:
    """Write a detector as the ONNX file ``path``, and compare the file with PyTorch on pictures.

    >>> report = fsaf.export("runs/mine/checkpoints/best.pt", "model.onnx", size=(384, 512))
    >>> print(report.summary())

    detector: a ``Detector``, or anything that ``fsaf.load`` opens. images: pictures to compare on; by default
    eight of the validation split of the data that the detector was trained on. size: (H, W) that images are
    padded to; by default any multiples of 32, unless the recipe has a single batch shape. target: ``ascend``
    writes a file for Ascend's compiler ATC. batch: images per run; dynamic_batch leaves the number to the
    caller of the file. opset: of ONNX; by default PyTorch's. outputs: ``raw`` writes logits and boxes of all
    locations, without NMS.
    float_images: take float32 images, 0..255, instead of uint8; by default only for ``ascend``. fixed_size:
    leave out the input ``sizes``; the caller fills padding with the mean colour.
    Raises UserError for wrong settings, or if the file and PyTorch disagree; no file is left then.
    """
    detector = _opened(detector)
    if images is None:
        records = splits.open_split(detector.config.data, "val", detector.classes)
        images = [record.path for record in records.images[:8]]
    return export_detector(
        detector,
        Path(path),
        images,
        size=size,
        target=target,
        batch=batch,
        dynamic_batch=dynamic_batch,
        opset=opset,
        outputs=outputs,
        float_images=float_images,
        fixed_size=fixed_size,
    )


def check(
    data: str | PathLike[str], config: Config | None = None, *, open_images: bool = True
) -> dict[str, SplitFindings]:
    """Return the contents and every fault of a data set, by split, as ``fsaf check --json`` prints them.

    >>> fsaf.check("DATA")["train"]["counts"]
    {'image-missing': 2}

    config: the recipe to check for (splits, image sizes, limits); by default a ``Config`` without changes.
    open_images: decode every image too. Raises UserError for a file that is unreadable.
    """
    config = config or Config()
    config = replace(config, data=replace(config.data, root=str(Path(data))))
    return check_result(survey(config, open_images=open_images).read)


def _opened(detector: Detector | str | PathLike[str]) -> Detector:
    return detector if isinstance(detector, Detector) else load(detector)


def _data(own: DataConfig, data: str | PathLike[str] | DataConfig | None) -> DataConfig:
    """Return settings for other data, with the image sizes of the detector's training."""
    if data is None or isinstance(data, DataConfig):
        return data or own
    return replace(own, root=str(Path(data)), train=SplitConfig(), val=SplitConfig())
