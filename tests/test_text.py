"""Text in columns."""

from fsaf.text import columns


def test_columns_are_aligned_to_their_side() -> None:
    rows = [["class", "AP", "note"], ["a long name", "0.5", "x"], ["b", "0.125", ""], ["c"]]
    assert columns(rows, "lrl").splitlines() == [
        "class           AP  note",
        "a long name    0.5  x",
        "b            0.125",
        "c",
    ]


def test_the_last_alignment_is_that_of_all_further_columns() -> None:
    assert columns([["a", "1", "10"], ["b", "20", "3"]], "lr").splitlines() == ["a   1  10", "b  20   3"]


def test_wide_and_unprintable_characters() -> None:
    assert columns([["细胞", "1"], ["cell", "2"], ["a\x1b[31m", "3"]], "lr").splitlines() == [
        "细胞    1",
        "cell    2",
        "a?[31m  3",
    ]


def test_no_rows() -> None:
    assert columns([], "l") == ""
