"""What fewer bits change in an exported file.

The float file is equal to PyTorch, as the export has checked. A file in fewer bits cannot be, so its
detections are compared with those of the float file, and AP is measured for both.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from torchvision.ops import box_iou

from fsaf.config import Config, DataConfig
from fsaf.config.predict import SHOWN_SCORE
from fsaf.data.records import Records
from fsaf.detection.detector import Detector
from fsaf.detection.network import Network, Opened
from fsaf.errors import UserError
from fsaf.exporting.fp16 import to_float16
from fsaf.exporting.int8 import Batches, quantise
from fsaf.scoring.evaluate import evaluate

SAME_IOU = 0.5
FOUND_SHARE = 0.8
"""Least share of the float file's detections that must be found again."""

REMEDIES = {
    "fp16": "Leave out --fp16",
    "int8": "Calibrate on more pictures like those the detector is for (--images), or leave out --int8",
}

Precision = Literal["fp16", "int8"]


@dataclass(kw_only=True)
class ReducedReport:
    """What fewer bits change."""

    precision: Precision
    calibrated_on: int | None = None
    """Number of pictures; None where nothing is calibrated."""
    float_megabytes: float
    detections: int = 0
    """Number that the float file finds with scores above 0.3."""
    found: int = 0
    """Number of these that the smaller file finds too: same class, IoU of 0.5 or more, any score."""
    score_difference: float = 0.0
    """Mean over those found."""
    ap: dict[str, float] | None = None
    """AP and AP50 of the float file on the validation split; None if that is not there."""
    ap_reduced: dict[str, float] | None = None
    no_ap: str | None = None
    """Why there is no AP."""

    def summary(self) -> str:
        """Return size, detections and AP in a few lines."""
        calibrated = "" if self.calibrated_on is None else f"calibrated on {self.calibrated_on} images; "
        text = f"{self.precision}: {calibrated}{self.float_megabytes:.1f} MB in float32"
        if self.detections:
            text += (
                f". {self.found} of {self.detections} detections above {SHOWN_SCORE:g} are found again (same "
                f"class, IoU {SAME_IOU:g} or more), scores differ by {self.score_difference:.2g} on average"
            )
        else:
            text += (
                f"\nwarning: nothing is detected with a score above {SHOWN_SCORE:g}, so nothing was compared"
            )
        if self.ap is None or self.ap_reduced is None:
            return f"{text}\nAP before and after not measured: {self.no_ap}"
        pairs = (f"{name} {self.ap[name]:.4f} -> {self.ap_reduced[name]:.4f}" for name in self.ap)
        return f"{text}\non the validation split: {', '.join(pairs)}"


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """What fewer bits are measured on."""

    calibration: Batches | None
    """For 8 bits; None for float16."""
    batches: Batches
    """To compare on."""
    records: Records | None
    """Validation split."""
    data: DataConfig
    no_records: str | None = None
    """Why there is no validation split."""

    @property
    def precision(self) -> Precision:
        """What the file is reduced to."""
        return "fp16" if self.calibration is None else "int8"

    def write(self, source: Path, target: Path, config: Config) -> None:
        """Write the float ONNX file ``source`` in fewer bits to ``target``."""
        if self.calibration is None:
            to_float16(source, target)
        else:
            quantise(source, target, self.calibration, config)

    def measure(self, before: Opened, after: Opened, megabytes: float, name: str) -> ReducedReport:
        """Compare a file in fewer bits, called ``name`` in messages, with the float file.

        megabytes: size of the float file. Raises UserError if too few detections are found again.
        """
        network, classes, config = before
        report = ReducedReport(precision=self.precision, float_megabytes=megabytes, no_ap=self.no_records)
        if self.calibration is not None:
            report.calibrated_on = sum(len(images) for images, _ in self.calibration)
        compare(network, after[0], self.batches, config, report)
        if report.found < FOUND_SHARE * report.detections:
            raise UserError(
                f"{name}: not written, because in {report.precision} only {report.found} of "
                f"{report.detections} detections are found again; at least {FOUND_SHARE:.0%} are needed. "
                f"{REMEDIES[report.precision]}"
            )
        if self.records is not None:
            own = replace(self.data, shapes=config.data.shapes, pad=config.data.pad)
            both = [
                evaluate(Detector(one, classes, config), self.records, own)[0] for one in (network, after[0])
            ]
            report.ap, report.ap_reduced = ({x: m[x] or 0.0 for x in ("AP", "AP50")} for m in both)
        return report


def compare(before: Network, after: Network, batches: Batches, config: Config, report: ReducedReport) -> None:
    """Pair detections of both files, best first, and fill in the counts of ``report``."""
    differences = []
    for images, sizes_b2 in batches:
        both = (network.detect(images, sizes_b2, config.predict) for network in (before, after))
        rows = [list(zip(*each[:3], strict=True)) for each in both]
        for (boxes, scores, labels), (boxes_r, scores_r, labels_r) in zip(*rows, strict=True):
            shown = (scores > SHOWN_SCORE) & (labels >= 0)
            report.detections += int(shown.sum())
            same = labels[shown][:, None] == labels_r[None]
            iou = box_iou(boxes[shown], boxes_r) * same
            for row, score in zip(iou, scores[shown].tolist(), strict=True):
                best = int(row.argmax())
                if row[best] >= SAME_IOU:
                    iou[:, best] = 0  # each is taken once; ``row`` is a view
                    differences.append(abs(score - float(scores_r[best])))
    report.found = len(differences)
    report.score_difference = float(np.mean(differences)) if differences else 0.0
