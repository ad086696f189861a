"""A result as a line, a table and a picture."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsaf.detection.draw import draw_result
from fsaf.detection.result import Result
from fsaf.errors import UserError

pandas = pytest.importorskip("pandas")

EXIF_ORIENTATION = 0x0112


def make_result(path: str | None = None, size: tuple[int, int] = (60, 90)) -> Result:
    return Result(
        boxes=np.array([[10, 10, 50, 40], [5, 5, 20, 20], [1, 2, 3, 4]], np.float32),
        scores=np.array([0.9, 0.5, 0.25], np.float32),
        labels=np.array([1, 1, 0]),
        names=["dog", "dog", "cat"],
        size=size,
        path=path,
    )


def nothing() -> Result:
    boxes, scores = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    return Result(boxes=boxes, scores=scores, labels=np.zeros(0, np.int64), names=[], size=(60, 90))


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))


def test_repr_is_one_short_line() -> None:
    assert repr(make_result("photos/a.jpg")) == "Result(a.jpg, 90 x 60: 2 dog, 1 cat)"
    assert repr(nothing()) == "Result(90 x 60: nothing)"


def test_a_table_has_a_row_for_each_detection() -> None:
    table = make_result("a.jpg").to_dataframe()
    assert list(table.columns) == ["image", "name", "label", "score", "x1", "y1", "x2", "y2"]
    assert table.iloc[0].tolist() == ["a.jpg", "dog", 1, pytest.approx(0.9), 10, 10, 50, 40]
    assert len(table) == 3 and len(nothing().to_dataframe()) == 0


def test_drawing_takes_the_file_or_the_picture(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    result = make_result(str(tmp_path / "a.png"))
    expected = draw_result(picture(), result.boxes, result.labels, result.scores, result.names)
    assert result.draw().tobytes() == expected.tobytes() == make_result().draw(picture()).tobytes()
    assert result.draw(score_threshold=0.95).tobytes() == picture().tobytes()


def test_drawing_turns_a_file_as_predicting_did(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    picture().save(tmp_path / "a.jpg", exif=exif)
    for size in ((60, 90), (90, 60)):
        assert make_result(str(tmp_path / "a.jpg"), size).draw().size == size[::-1]


def test_a_picture_from_memory_must_be_given() -> None:
    with pytest.raises(UserError, match="from memory"):
        make_result().draw()


def test_the_suffix_says_the_format(tmp_path: Path) -> None:
    for name, format in (("a.png", "PNG"), ("b.JPG", "JPEG"), ("c.webp", "WEBP")):
        make_result().save(tmp_path / name, picture())
        with Image.open(tmp_path / name) as image:
            assert (image.format, image.size) == (format, (90, 60))
    with pytest.raises(UserError, match=r"a\.txt"):
        make_result().save(tmp_path / "a.txt", picture())
    assert len(list(tmp_path.iterdir())) == 3
