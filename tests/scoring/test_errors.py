"""Kinds of error, each made once by hand."""

import pytest

from fsaf.scoring.errors import error_kinds
from scoring.test_analysis import record, split


def test_each_kind_is_counted_once() -> None:
    corners = [(0, 0), (200, 0), (400, 0), (0, 200), (200, 200)]
    boxes = [[x, y, x + 100, y + 100] for x, y in corners]
    records = split(record(1, boxes, [0, 0, 0, 0, 0]))
    rows = [
        (0, 0, 3, 0.9),  # right
        (2, 2, 3, 0.5),  # the same box again
        (200, 0, 17, 0.8),  # another class
        (450, 0, 3, 0.7),  # an IoU of a third
        (50, 200, 17, 0.6),  # both
        (480, 480, 3, 0.4),  # nothing there
    ]
    predictions = [
        {"image_id": 1, "category_id": kind, "bbox": [x, y, 100, 100], "score": score}
        for x, y, kind, score in rows
    ]
    kinds = {kind.name: kind for kind in error_kinds(records, predictions)}
    assert {name: kind.count for name, kind in kinds.items()} == {
        "wrong class": 1,
        "wrong place": 1,
        "wrong class and place": 1,
        "found twice": 1,
        "background": 1,
        "missed": 2,
    }
    costs = [kind.cost for kind in kinds.values()]
    assert costs == sorted(costs, reverse=True) and costs[0] > 0
    assert kinds["missed"].cost == pytest.approx(0.2, abs=0.2)


def test_without_boxes_or_predictions_there_are_no_kinds() -> None:
    one = {"image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9], "score": 0.5}
    assert error_kinds(split(record(1, [], [])), [one]) == []
    assert error_kinds(split(record(1, [[0, 0, 9, 9]], [0])), []) == []
