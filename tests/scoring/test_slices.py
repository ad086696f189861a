"""Shares of boxes that are found, against counting by hand."""

import numpy as np
import pytest

from fsaf.scoring.matching import match_boxes, tabulate
from fsaf.scoring.slices import Slice, found_boxes
from scoring.test_analysis import record, split


def slices_of(
    records: object, rows: list[tuple[int, int, float, float, float, float]]
) -> dict[str, list[Slice]]:
    """Return the slices for rows of image, category, x, y, side, score."""
    predictions = [
        {"image_id": image, "category_id": kind, "bbox": [x, y, side, side], "score": score}
        for image, kind, x, y, side, score in rows
    ]
    table = tabulate(records, predictions)  # type: ignore[arg-type]
    return found_boxes(records, table, match_boxes(records, table))  # type: ignore[arg-type]


def test_each_slice_counts_its_boxes() -> None:
    alone = record(1, [[0, 0, 10, 10]], [0])
    many = record(2, [[0, 0, 10, 10], [50, 50, 100, 100], [200, 200, 400, 400]], [0, 1, 1])
    found = slices_of(
        split(alone, many),
        [
            (1, 3, 0, 0, 10, 0.9),
            (2, 3, 0, 0, 10, 0.29),  # under the threshold
            (2, 17, 50, 50, 50, 0.8),
            (2, 3, 200, 200, 200, 0.8),  # another class
        ],
    )
    told = {
        kind: {row.name: (row.boxes, row.images, row.found) for row in rows} for kind, rows in found.items()
    }
    assert told["Size"] == {"small": (2, 2, 0.5), "medium": (1, 1, 1.0), "large": (1, 1, 0.0)}
    assert told["Boxes in the image"] == {
        "alone in its image": (1, 1, 1.0),
        "2 to 5": (3, 1, pytest.approx(1 / 3)),
    }
    assert [row[0] for row in told["Class"].values()] == [2, 2]
    assert [row[2] for row in told["Class"].values()] == [0.5, 0.5]
    assert {row.name for rows in found.values() for row in rows if row.interval is None} >= {
        "medium",
        "large",
    }


def test_the_interval_is_that_of_a_share_of_independent_images() -> None:
    """A box in each of 400 images, 100 of them found: the interval of a binomial share."""
    images = [record(i, [[0, 0, 10, 10]], [0]) for i in range(1, 401)]
    found = slices_of(split(*images), [(i, 3, 0, 0, 10, 0.9) for i in range(1, 101)])
    (row,) = found["Size"]
    expected = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert row.found == 0.25 and row.interval is not None
    assert row.interval == pytest.approx((0.25 - expected, 0.25 + expected), abs=0.006)


def test_a_split_without_boxes_has_no_slices() -> None:
    assert slices_of(split(record(1, [], [])), [(1, 3, 0, 0, 9, 0.5)]) == {}
