"""Quantise an exported file to 8 bits with onnxruntime, and measure what that changes.

Static quantisation: the ranges of activations are those that calibration pictures reach. Only convolutions
are quantised, each output channel with its own scale, and not the last ones of the head: their errors are
errors of scores and boxes.
"""

import contextlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torchvision.ops import box_iou

from fsaf.config import Config, DataConfig
from fsaf.config.predict import SHOWN_SCORE
from fsaf.data.records import Records
from fsaf.detection.detector import Detector
from fsaf.detection.exported import Session, prepare_inputs
from fsaf.detection.network import Network
from fsaf.detection.onnx import OnnxSession, open_onnx
from fsaf.errors import UserError, import_extra
from fsaf.files import temporary_folder
from fsaf.scoring.evaluate import evaluate

CALIBRATED_ON = 64
"""Pictures at most."""
FLOAT_LAYERS = ("classes", "distances", "anchor_classes", "anchor_deltas")
"""Output convolutions of the head."""
SAME_IOU = 0.5
FOUND_SHARE = 0.8
"""Least share of the float file's detections that must be found again."""

Batches = Sequence[tuple[Tensor, Tensor]]
"""Images (n, 3, H, W) uint8, and their sizes inside the padding (n, 2)."""


@dataclass(kw_only=True)
class Int8Report:
    """What 8 bits change. The float file is equal to PyTorch, as the export has checked."""

    calibrated_on: int
    """Number of pictures."""
    float_megabytes: float
    detections: int = 0
    """Number that the float file finds with scores above 0.3."""
    found: int = 0
    """Number of these that the 8-bit file finds too: same class, IoU of 0.5 or more, any score."""
    score_difference: float = 0.0
    """Mean over those found."""
    ap: dict[str, float] | None = None
    """AP and AP50 of the float file on the validation split; None if that is not there."""
    ap_int8: dict[str, float] | None = None
    no_ap: str | None = None
    """Why there is no AP."""

    def summary(self) -> str:
        """Return size, detections and AP in a few lines."""
        text = (
            f"int8: calibrated on {self.calibrated_on} images; {self.float_megabytes:.1f} MB in float. "
            f"{self.found} of {self.detections} detections above {SHOWN_SCORE:g} are found again (same "
            f"class, IoU {SAME_IOU:g} or more), scores differ by {self.score_difference:.2g} on average"
        )
        if not self.detections:
            text = (
                f"int8: calibrated on {self.calibrated_on} images; {self.float_megabytes:.1f} MB in float\n"
                f"warning: nothing is detected with a score above {SHOWN_SCORE:g}, so nothing was compared"
            )
        if self.ap is None or self.ap_int8 is None:
            return f"{text}\nAP before and after not measured: {self.no_ap}"
        pairs = (f"{name} {self.ap[name]:.4f} -> {self.ap_int8[name]:.4f}" for name in self.ap)
        return f"{text}\non the validation split: {', '.join(pairs)}"


@dataclass(frozen=True, kw_only=True)
class Int8Work:
    """What quantisation needs."""

    calibration: Batches
    batches: Batches
    """To compare on."""
    records: Records | None
    """Validation split."""
    data: DataConfig
    no_records: str | None = None
    """Why there is no validation split."""

    def __call__(self, draft: Path, name: str) -> Int8Report:
        """Replace the float file ``draft`` by one of 8 bits, called ``name`` in messages.

        Raises UserError if too few detections are found again.
        """
        report = Int8Report(
            calibrated_on=sum(len(images) for images, _ in self.calibration),
            float_megabytes=draft.stat().st_size / 1e6,
            no_ap=self.no_records,
        )
        before, classes, config = open_onnx(draft, "cpu")
        with temporary_folder("fsaf-int8") as folder:
            small = folder / "int8.onnx"
            quantise(draft, small, self.calibration, config)
            after, _, _ = open_onnx(small, "cpu")
            compare(before, after, self.batches, config, report)
            if report.found < FOUND_SHARE * report.detections:
                raise UserError(
                    f"{name}: not written, because in 8 bits only {report.found} of {report.detections} "
                    f"detections are found again; at least {FOUND_SHARE:.0%} are needed. Calibrate on more "
                    "pictures like those the detector is for (--images), or leave out --int8"
                )
            if self.records is not None:
                own = replace(self.data, shapes=config.data.shapes, pad=config.data.pad)
                both = [
                    evaluate(Detector(network, classes, config), self.records, own)[0]
                    for network in (before, after)
                ]
                report.ap, report.ap_int8 = ({x: m[x] or 0.0 for x in ("AP", "AP50")} for m in both)
            _finish(small, draft, report)
        return report


def quantise(source: Path, target: Path, calibration: Batches, config: Config) -> None:
    """Write the 8-bit version of an exported file. Raises UserError if onnxruntime cannot."""
    onnx = import_extra("onnx", need="--int8 needs")
    tools = import_extra("onnxruntime.quantization", need="--int8 needs")
    convolutions = [node for node in onnx.load(source).graph.node if node.op_type == "Conv"]
    kept = [
        node.name
        for node in convolutions
        if node.input[1].split(".")[-2:-1] in [[name] for name in FLOAT_LAYERS]
    ]
    if not kept:
        raise UserError("int8: the convolutions that must stay in float are not found in the exported graph")
    feeds = _feeds(OnnxSession(source, "cpu"), calibration, config)

    class Reader(tools.CalibrationDataReader):  # type: ignore[name-defined]
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(feeds, None)

    with _quiet():
        tools.quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            nodes_to_exclude=kept,
        )


def compare(before: Network, after: Network, batches: Batches, config: Config, report: Int8Report) -> None:
    """Pair detections of both files, best first, and fill in the counts of ``report``."""
    differences = []
    for images, sizes_b2 in batches:
        both = (network.detect(images, sizes_b2, config.predict) for network in (before, after))
        rows = [list(zip(*each[:3], strict=True)) for each in both]
        for (boxes, scores, labels), (boxes_8, scores_8, labels_8) in zip(*rows, strict=True):
            shown = (scores > SHOWN_SCORE) & (labels >= 0)
            report.detections += int(shown.sum())
            same = labels[shown][:, None] == labels_8[None]
            iou = box_iou(boxes[shown], boxes_8) * same
            for row, score in zip(iou, scores[shown].tolist(), strict=True):
                best = int(row.argmax())
                if row[best] >= SAME_IOU:
                    iou[:, best] = 0  # each is taken once; ``row`` is a view
                    differences.append(abs(score - float(scores_8[best])))
    report.found = len(differences)
    report.score_difference = float(np.mean(differences)) if differences else 0.0


def _feeds(session: Session, batches: Batches, config: Config) -> Iterator[dict[str, np.ndarray]]:
    """Yield the inputs of each run of the file; a last batch that is not full is filled up with copies."""
    for images, sizes_b2 in batches:
        inputs = prepare_inputs(session, images, sizes_b2, config.model.mean_colour)
        count = session.input_shape[0] or 1
        for start in range(0, len(images), count):
            index = [min(i, len(images) - 1) for i in range(start, start + count)]
            parts = [x[index].contiguous().numpy() for x in inputs]
            yield dict(zip(("images", "sizes"), parts, strict=False))


def _finish(source: Path, target: Path, report: Int8Report) -> None:
    """Copy a file with the report in its metadata."""
    onnx = import_extra("onnx")
    model: Any = onnx.load(source)
    model.producer_name = "fsaf"
    entry = model.metadata_props.add()
    entry.key, entry.value = "int8", json.dumps(asdict(report))
    onnx.save(model, target)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence onnxruntime's advice to preprocess: our graphs are optimised already."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
