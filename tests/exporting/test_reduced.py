"""Files of fewer bits: what is compared, and what is said of it."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fsaf.config import Config
from fsaf.detection.postprocess import Detections
from fsaf.exporting.reduced import ReducedReport, compare


class Finds:
    """A network that finds given boxes."""

    def __init__(self, *rows: tuple[Sequence[float], float, int]) -> None:
        boxes, scores, labels = (torch.tensor([column]) for column in zip(*rows, strict=True))
        self.found = Detections(boxes, scores, labels)

    def detect(self, *_: object) -> Detections:
        return self.found


def test_each_detection_is_found_once_with_its_class() -> None:
    box, near, far = (0.0, 0.0, 10.0, 10.0), (0.0, 1.0, 10.0, 10.0), (20.0, 20.0, 30.0, 30.0)
    before = Finds((box, 0.9, 0), (near, 0.8, 0), (far, 0.7, 1), (far, 0.2, 2), (box, 0.0, -1))
    after = Finds((near, 0.7, 0), (far, 0.9, 0), (far, 0.1, 1))
    report = ReducedReport(precision="fp16", float_megabytes=1.0)
    compare(before, after, [(Tensor(), Tensor())], Config(), report)  # type: ignore[arg-type]
    assert (report.detections, report.found) == (3, 2)
    assert report.score_difference == pytest.approx((0.2 + 0.6) / 2)


def test_the_summary_says_why_there_is_no_ap() -> None:
    report = ReducedReport(precision="fp16", float_megabytes=1.0, no_ap="no such folder")
    assert "AP before and after not measured: no such folder" in report.summary()
    assert "warning: nothing is detected" in report.summary()
    assert "warning" not in replace(report, detections=2, found=2).summary()
