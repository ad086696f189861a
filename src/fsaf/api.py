"""Public functions that take files and folders: a checkpoint for a detector, a folder for a data set."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, cast

from fsaf.config import Config, DataConfig, SplitConfig, to_dict
from fsaf.detection import detector as detection
from fsaf.detection.picture import Picture

# Functions import what they work with: ``fsaf.load`` of an exported file need not wait for PyTorch.
if TYPE_CHECKING:
    import torch
    from rich.console import Console

    from fsaf.checking.text import SplitFindings
    from fsaf.exporting.onnx import ExportReport
    from fsaf.scoring.metrics import Metrics
    from fsaf.training.callbacks import Callback

P = ParamSpec("P")


class Detector(detection.Detector):
    # A subclass here, because ``detection`` lies below ``scoring`` and ``exporting``, which use it. Users get
    # this class alone, from ``fsaf.load``; the parts of the package work with its base.
    __doc__ = detection.Detector.__doc__

    def evaluate(self, data: str | PathLike[str] | DataConfig | None = None) -> "Metrics":
        """Score the detector on a validation split, as ``fsaf.evaluate`` does.

        >>> detector.evaluate("DATA")["AP50"]
        0.84
        """
        return evaluate(self, data)

    def export(
        self, path: str | PathLike[str], images: Sequence[Picture] | None = None, **options: Any
    ) -> "ExportReport":
        """Write the detector as an ONNX file, and compare the file with PyTorch, as ``fsaf.export`` does.

        >>> print(detector.export("model.onnx", ["photo.jpg"]).summary())

        options: those of ``fsaf.export``.
        """
        return export(self, path, images, **options)


class Run:
    """The run folder of a training, with its figures and its detector.

    >>> run = fsaf.train("lite0", data="DATA", out="runs/mine")
    >>> run
    Run(runs/mine: AP 0.412, AP50 0.731)
    >>> run.detector().predict("photo.jpg")

    folder: of any run, also of ``fsaf train``. A ``Run`` can be used as a path: ``run / "report.html"``.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)

    @property
    def metrics(self) -> "Metrics | None":
        """COCO's metrics of ``best.pt`` by name, ``AP`` first; None if nothing was evaluated."""
        from fsaf.run_folder.read import read_object

        return cast("Metrics | None", read_object(self.folder / "evaluation.json", []))

    def detector(self, device: "str | torch.device | None" = None) -> Detector:
        """Open the best checkpoint, or the last one if nothing was evaluated; device: as in ``fsaf.load``.

        Raises UserError if there is none.
        """
        from fsaf.checkpoints.any_format import local

        return load(local(self.folder), device)

    def __repr__(self) -> str:
        """Return the folder, AP and AP50."""
        metrics = self.metrics or {}
        figures = ", ".join(f"{name} {metrics[name]:.3f}" for name in ("AP", "AP50") if metrics.get(name))
        return f"Run({self.folder}: {figures or 'no figures'})"

    def __fspath__(self) -> str:
        return str(self.folder)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


def train(
    config: Config | str | PathLike[str] | None = None,
    data: str | PathLike[str] | None = None,
    out: str | PathLike[str] | None = None,
    *,
    console: "Console | None" = None,
    callbacks: "Sequence[Callback]" = (),
    **settings: Any,
) -> Run:
    """Train a detector as ``fsaf train`` does, report included; return its run folder, figures and detector.

    >>> run = fsaf.train("lite0", data="DATA", out="runs/mine", train__epochs=20, optim__lr=5e-4)
    >>> run = fsaf.train(data="DATA")  # recipe lite0, run folder runs/DATA
    >>> run = fsaf.train(resume="runs/mine")
    >>> run = fsaf.train("mine.yaml", **{"data.root": "DATA", "train.precision": "bf16"})

    config: the name of a recipe, its YAML file, or a ``Config``. data: the folder of a data set. out: the run
    folder. settings: keys of the recipe, with a double underscore or, from a dict, with a dot. console: show
    progress there. callbacks: objects of subclasses of ``fsaf.Callback``, called on the way.
    In a script, call it under ``if __name__ == "__main__":`` (or give ``data__workers=0``), since loader
    processes may import the script. Notebooks need nothing.
    Raises UserError for mistakes in recipe or data, and if the loss is no longer finite; Stopped after Ctrl-C
    or SIGTERM, with everything saved.
    """
    from rich.console import Console

    from fsaf.cli.train import train_and_report

    places = {"data": data, "out": out}
    given = {name: os.fspath(path) for name, path in places.items() if path is not None}
    chosen = _config(config, given, settings)
    shown = [] if config is None else ["config" if isinstance(config, Config) else repr(os.fspath(config))]
    if any("." in name for name in settings):
        shown += [f"{name}={value!r}" for name, value in given.items()] + [f"**{settings!r}"]
    else:
        shown += [f"{name}={value!r}" for name, value in {**given, **settings}.items()]
    # Plain lines in a notebook: rich would rewrite an HTML output many times a second.
    console = console or Console(force_jupyter=False)
    command = f"fsaf.train({', '.join(shown)})"
    return Run(train_and_report(chosen, command, console, callbacks))


def _config(
    config: Config | str | PathLike[str] | None, given: dict[str, str], settings: Mapping[str, Any]
) -> Config:
    """Return the settings of a training, read as those on the command line are."""
    from fsaf.cli.train import read_config
    from fsaf.cli.words import as_option, translate
    from fsaf.recipe import build_config

    words = [as_option({"data": "data.root"}.get(name, name), value) for name, value in given.items()]
    words += [as_option(name.replace("__", "."), value) for name, value in settings.items()]
    if isinstance(config, Config):
        return build_config(to_dict(config), words, where="config") if words else config
    if config is None and "resume" not in settings:
        config = given.get("data")
    _, *rest = translate(["train", *([] if config is None else [os.fspath(config)]), *words])
    recipe = rest.pop(0) if config is not None else None
    return read_config(recipe, rest)


def _as_detector(load: Callable[P, detection.Detector]) -> Callable[P, Detector]:
    """Return ``load``, signature and docstring included, for the class of this file."""

    @wraps(load)
    def load_detector(*args: P.args, **kwargs: P.kwargs) -> Detector:
        opened = load(*args, **kwargs)
        return Detector(opened.network, opened.classes, opened.config)

    return load_detector


load = _as_detector(detection.load)


def evaluate(
    detector: detection.Detector | str | PathLike[str],
    data: str | PathLike[str] | DataConfig | None = None,
) -> "Metrics":
    """Score a detector on a validation split with COCO's metrics; return them by name, ``AP`` first.

    >>> fsaf.evaluate("runs/mine/checkpoints/best.pt", "DATA")["AP50"]
    0.84

    detector: a ``Detector``, or anything that ``fsaf.load`` opens. data: the folder of a data set, or the
    section ``data`` of a ``Config``; by default the data that the detector was trained on.
    Raises UserError for data that training would refuse, or that has other classes.
    """
    from fsaf.data.readers import splits
    from fsaf.scoring.evaluate import evaluate as evaluate_records

    detector = _opened(detector)
    settings = _data(detector.config.data, data)
    records = splits.open_split(settings, "val", detector.classes)
    splits.check_images(records, settings)
    metrics, _ = evaluate_records(detector, records, settings)
    return metrics


def export(
    detector: detection.Detector | str | PathLike[str],
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
    standalone: bool = False,
    web: str | PathLike[str] | None = None,
    fp16: bool = False,
    int8: bool = False,
) -> "ExportReport":
    """Write a detector as the file ``path``, and compare the file with PyTorch on pictures.

    >>> report = fsaf.export("runs/mine/checkpoints/best.pt", "model.onnx", size=(384, 512))
    >>> print(report.summary())

    detector: a ``Detector``, or anything that ``fsaf.load`` opens. path: ends in ``.onnx``, or in ``.xml``
    for OpenVINO, whose weights are written beside it as ``.bin``. images: pictures to compare on; by default
    eight of the validation split of the data that the detector was trained on. size: (H, W) that images are
    padded to; by default any multiples of 32, unless the recipe has a single batch shape. target: ``ascend``
    writes a file for Ascend's compiler ATC. batch: images per run; dynamic_batch leaves the number to the
    caller of the file. opset: of ONNX; by default PyTorch's. outputs: ``raw`` writes logits and boxes of all
    locations, without NMS. float_images: take float32 images, 0..255, instead of uint8; by default only for
    ``ascend``. fixed_size: leave out the input ``sizes``; the caller fills padding with the mean colour.
    standalone: write ``NAME_predict.py`` beside the file, which runs it with numpy, Pillow and onnxruntime
    alone. web: write this folder too, with a page that runs the file in the browser. fp16: write the network
    in float16. int8: quantise convolutions to 8 bits, calibrated on ``images``, by default on up to 64 of the
    training split.
    Raises UserError for wrong settings, or if the file and PyTorch disagree; no file is left then.
    """
    from fsaf.data.readers import splits
    from fsaf.exporting.export import export_detector

    detector = _opened(detector)
    calibrate = images if int8 else None
    if images is None:
        if int8:
            train = splits.open_split(detector.config.data, "train", detector.classes)
            calibrate = [record.path for record in train.images[:64]]
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
        standalone=standalone,
        web=None if web is None else Path(web),
        fp16=fp16,
        calibrate=calibrate,
    )


def check(
    data: str | PathLike[str], config: Config | None = None, *, open_images: bool = True
) -> "dict[str, SplitFindings]":
    """Return the contents and every fault of a data set, by split, as ``fsaf check --json`` prints them.

    >>> fsaf.check("DATA")["train"]["counts"]
    {'image-missing': 2}

    config: the recipe to check for (splits, image sizes, limits); by default a ``Config`` without changes.
    open_images: decode every image too. Raises UserError for a file that is unreadable.
    """
    from fsaf.checking.survey import survey
    from fsaf.checking.text import check_result

    config = config or Config()
    config = replace(config, data=replace(config.data, root=str(Path(data))))
    return check_result(survey(config, open_images=open_images).read)


def _opened(detector: detection.Detector | str | PathLike[str]) -> detection.Detector:
    return detector if isinstance(detector, detection.Detector) else load(detector, fold=False)


def _data(own: DataConfig, data: str | PathLike[str] | DataConfig | None) -> DataConfig:
    """Return settings for other data, with the image sizes of the detector's training."""
    if data is None or isinstance(data, DataConfig):
        return data or own
    return replace(own, root=str(Path(data)), train=SplitConfig(), val=SplitConfig())
