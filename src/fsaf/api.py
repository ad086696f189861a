"""Public functions that open what they are given: a detector by its file, a data set by its folder."""

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from fsaf.checking.survey import check_annotations, decode_images, read_splits
from fsaf.checking.text import check_result
from fsaf.config import Config, DataConfig, SplitConfig
from fsaf.data.readers import splits
from fsaf.detection.detector import Detector, load
from fsaf.detection.picture import Picture
from fsaf.exporting.export import export_detector
from fsaf.exporting.onnx import ExportReport
from fsaf.scoring.evaluate import evaluate as evaluate_records


def evaluate(
    detector: Detector | str | PathLike[str], data: str | PathLike[str] | DataConfig | None = None
) -> dict[str, Any]:
    """Score a detector on a validation split with COCO's metrics; return them by name, ``AP`` first.

    detector: opened, or what ``fsaf.load`` takes. data: the folder of a data set, or the section ``data``
    of a ``Config``; by default the data that the detector was trained on.
    Raises UserError for data that training would refuse, or of other classes.
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
    **options: Any,
) -> ExportReport:
    """Write a detector as the ONNX file ``path`` and compare the file with PyTorch.

    detector: opened, or what ``fsaf.load`` takes. images: pictures to compare on; by default eight of the
    validation split of the data that the detector was trained on. options: as ``export_detector``, such as
    ``size=(384, 512)`` or ``dynamic_batch=True``.
    Raises UserError if the file and PyTorch disagree; no file is left then.
    """
    detector = _opened(detector)
    if images is None:
        records = splits.open_split(detector.config.data, "val", detector.classes)
        images = [record.path for record in records.images[:8]]
    return export_detector(detector, Path(path), images, **options)


def check(
    data: str | PathLike[str], config: Config | None = None, *, open_images: bool = True
) -> dict[str, Any]:
    """Return every fault of the data set in folder ``data``, by split, as ``fsaf check --json`` prints it.

    config: the recipe to check for (splits, image sizes, limits); by default a ``Config`` without changes.
    open_images: decode every image too. Raises UserError for a file that is unreadable.
    """
    config = config or Config()
    settings = replace(config.data, root=str(Path(data)))
    found = read_splits(splits.splits_of(settings), settings)
    check_annotations(found, config.data, config.objective)
    if open_images:
        decode_images(found, config.data)
    return check_result(found)


def _opened(detector: Detector | str | PathLike[str]) -> Detector:
    return detector if isinstance(detector, Detector) else load(detector)


def _data(own: DataConfig, data: str | PathLike[str] | DataConfig | None) -> DataConfig:
    """The detector's settings for other data: images are resized and padded as in training."""
    if data is None or isinstance(data, DataConfig):
        return data or own
    return replace(own, root=str(Path(data)), train=SplitConfig(), val=SplitConfig())
