"""The comparison of ONNX and PyTorch finds errors and accepts rounding."""

from typing import Any

import pytest
import torch

from fsaf.config import PredictConfig
from fsaf.data.records import Classes
from fsaf.detection.postprocess import Detections
from fsaf.errors import UserError
from fsaf.exporting.check import Comparison, compare_detections

CLASSES = Classes(names=("cat", "dog"), ids=(1, 2))
Row = tuple[list[float], float, int]


def detections(rows: list[Row], slots: int = 50) -> Detections:
    """Detections of one image, best score first."""
    rows = sorted(rows, key=lambda row: -row[1])
    rows = rows + [([0.0] * 4, 0.0, -1)] * (slots - len(rows))
    boxes, scores, labels = zip(*rows, strict=True)
    return Detections(torch.tensor([boxes]), torch.tensor([scores]), torch.tensor([labels]))


def compare(a: list[Row], b: list[Row], slots: int = 50) -> Comparison:
    comparison = Comparison(images=1)
    compare_detections(
        detections(a, slots), detections(b, slots), PredictConfig(), CLASSES, comparison, "x.onnx"
    )
    return comparison


def apart(i: int) -> Row:
    return ([20.0 * i, 0.0, 20.0 * i + 10, 10.0], 0.9 - 0.01 * i, i % 2)


MANY = [apart(i) for i in range(40)]


def test_equal() -> None:
    found = compare(MANY, MANY)
    assert (found.detections, found.on_edge, found.tied) == (40, 0, 0)
    assert found.max_box_difference == found.max_score_difference == 0


def test_differences_are_measured() -> None:
    other = [([x + 0.05 for x in box], score - 5e-4, label) for box, score, label in MANY]
    found = compare(MANY, other)
    assert found.max_box_difference == pytest.approx(0.05, abs=1e-4)
    assert found.max_score_difference == pytest.approx(5e-4, abs=1e-6)


def test_nearly_equal_scores_may_swap() -> None:
    a = [([0, 0, 9, 9], 0.5, 0), ([50, 0, 59, 9], 0.4999, 0)]
    b = [([0, 0, 9, 9], 0.4999, 0), ([50, 0, 59, 9], 0.5, 0)]
    assert compare(a, b).detections == 2


@pytest.mark.parametrize(
    "change",
    [
        {"box": [0.2, 0.0, 10.0, 10.0]},
        {"score": 0.8},
        {"label": 1},
        {"box": [float("nan")] * 4},
    ],
)
def test_one_wrong_detection_fails(change: dict[str, Any]) -> None:
    box, score, label = MANY[0]
    wrong = (change.get("box", box), change.get("score", score), change.get("label", label))
    with pytest.raises(UserError, match=r"x\.onnx: not written, because onnxruntime and PyTorch"):
        compare(MANY, [wrong, *MANY[1:]])


def test_missing_and_extra_fail() -> None:
    with pytest.raises(UserError, match=r"only PyTorch finds 'dog' with score 0\.8900 at \[20\.0, 0\.0,"):
        compare(MANY, MANY[:1] + MANY[2:])
    with pytest.raises(UserError, match="only onnxruntime finds"):
        compare(MANY[1:], MANY)
    with pytest.raises(UserError, match="only PyTorch finds"):
        compare(MANY[:3], [])


def test_another_suppression_threshold_fails() -> None:
    """The extra boxes overlap a detection that both sides kept, well above the threshold of 0.5."""
    extra: list[Row] = [([0, 0, 10, 6.5], 0.5, 0)]
    with pytest.raises(UserError, match="only onnxruntime finds"):
        compare(MANY, MANY + extra)


def test_scores_at_the_threshold_may_differ() -> None:
    edge: Row = ([900, 0, 910, 10], 0.0503, 0)
    found = compare([*MANY, edge], MANY)
    assert (found.detections, found.on_edge) == (40, 1)


def test_the_last_place_may_differ() -> None:
    a: Row = ([900, 0, 910, 10], 0.3001, 0)
    b: Row = ([950, 0, 960, 10], 0.3000, 0)
    assert compare([*MANY, a], [*MANY, b], slots=41).on_edge == 2
    with pytest.raises(UserError, match="only PyTorch finds"):
        compare([*MANY, a], [*MANY, b], slots=50)


def test_a_tie_in_suppression_may_differ() -> None:
    a: Row = ([900, 0, 910, 10], 0.50001, 0)
    b: Row = ([902, 0, 912, 10], 0.50000, 0)
    assert compare([*MANY, a], [*MANY, b]).tied == 2
    overlap = ([0, 0, 10, 5.02], 0.5, 0)  # 0.502 of the first detection
    assert compare([*MANY, overlap], MANY).tied == 1


def test_many_ties_fail() -> None:
    """If all boxes are moved by a pixel, each looks like a tie; together they are an error."""
    moved = [([x + 1 for x in box], score, label) for box, score, label in MANY]
    with pytest.raises(UserError, match="80 detections found by one only"):
        compare(MANY, moved)


def test_nothing_in_common_fails() -> None:
    with pytest.raises(UserError, match="disagree"):
        compare([([0, 0, 10, 10], 0.0503, 0)], [])
