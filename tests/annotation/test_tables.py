"""Files for other programs, read back by other programs' readers."""

import contextlib
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from annotation.videos import write_frames
from fsaf.annotation.annotate import Output, annotate
from fsaf.annotation.sources import find_sources
from fsaf.annotation.tables import TableFiles, read_ids, yolo_lines
from fsaf.detection.detector import Detector
from fsaf.detection.result import Result
from fsaf.errors import UserError
from synthetic import Picture, paint, write_coco

PICTURES = [
    Picture(height=64, width=96, objects=[(8, 16, 24, 16, 7), (60, 40, 20, 12, 3)]),
    Picture(height=64, width=96),
    Picture(height=96, width=144, objects=[(30, 48, 36, 24, 90)]),
]


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """Annotations of ``PICTURES``, with ids from 11; the pictures are in ``images/train``."""
    return write_coco(tmp_path, PICTURES)


def read(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_coco_results_with_the_ids_of_annotations(sees: Detector, tmp_path: Path, annotations: Path) -> None:
    sources, _ = find_sources([str(tmp_path / "images")])
    files = TableFiles(coco=tmp_path / "found" / "coco.json", ids=annotations)
    assert annotate(sees, sources, Output(folder=tmp_path / "out", json=True, tables=files), 2) == 0
    truth = read(annotations)
    with contextlib.redirect_stdout(io.StringIO()):
        found = truth.loadRes(str(tmp_path / "found" / "coco.json"))
    for id_ in (11, 12, 13):
        expected = {a["category_id"]: a["bbox"] for a in truth.loadAnns(truth.getAnnIds(imgIds=[id_]))}
        boxes = {a["category_id"]: a["bbox"] for a in found.loadAnns(found.getAnnIds(imgIds=[id_]))}
        assert boxes == {key: pytest.approx(box, abs=2e-3) for key, box in expected.items()}
    assert not (tmp_path / "out").exists()


def test_coco_results_are_numbered_in_order(sees: Detector, tmp_path: Path, annotations: Path) -> None:
    sources, _ = find_sources([str(tmp_path / "images")])
    files = TableFiles(coco=tmp_path / "coco.json")
    annotate(sees, sources, Output(folder=tmp_path / "out", json=True, tables=files))
    entries = json.loads((tmp_path / "coco.json").read_text())
    assert [(entry["image_id"], Path(entry["file_name"]).name) for entry in entries] == [
        (1, "0011.png"), (1, "0011.png"), (3, "0013.png"),
    ]  # fmt: skip


def test_ids_of_annotations(tmp_path: Path, annotations: Path) -> None:
    content = {"images": [{"id": 1, "file_name": "train/0011.png"}, {"id": 2, "file_name": "val/0011.png"}]}
    given = tmp_path / "ids.json"
    sources, _ = find_sources([str(tmp_path / "images" / "train" / "0011.png")])
    given.write_text(json.dumps(content))
    assert read_ids(given, sources) == {sources[0].name: 1}
    content["images"] = [{"id": 5, "file_name": "elsewhere/0011.png"}]
    given.write_text(json.dumps(content))
    assert read_ids(given, sources) == {sources[0].name: 5}
    content["images"] = [{"id": i, "file_name": f"{i}/0011.png"} for i in range(2)]
    for text, told in (
        (json.dumps(content), "has no image .*0011.png"),
        ("[]", "is no annotation file of COCO"),
        ('{"images": [{}]}', "is no annotation file of COCO"),
        ("{", "is no annotation file of COCO"),
    ):
        given.write_text(text)
        with pytest.raises(UserError, match=f"ids.json: {told}"):
            read_ids(given, sources)


def test_a_table_of_pictures_and_frames(sees: Detector, tmp_path: Path) -> None:
    Image.fromarray(paint(PICTURES[0])).save(tmp_path / 'a "b",c.png')
    write_frames(tmp_path / "d.mkv", map(paint, [PICTURES[1], PICTURES[0]]), ("ffv1", "bgr0"), rate=10)
    sources, _ = find_sources([str(tmp_path)])
    output = Output(folder=tmp_path / "out", json=True, tables=TableFiles(csv=tmp_path / "found.csv"))
    annotate(sees, sources, output)
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(Path(row["image"]).name, row["frame"], row["time"]) for row in rows] == [
        *[('a "b",c.png', "", "")] * 2,
        *[("d.mkv", "1", "0.1")] * 2,
    ]
    assert {row["name"] for row in rows} == {"red", "green"} and {row["track"] for row in rows} == {""}
    (red,) = (row for row in rows[:2] if row["name"] == "red")
    assert [float(red[side]) for side in ("x1", "y1", "x2", "y2")] == pytest.approx([8, 16, 32, 32], abs=2e-3)
    assert red["label"] == "1" and 0.3 < float(red["score"]) < 1


def test_lines_of_yolo(sees: Detector, tmp_path: Path, annotations: Path) -> None:
    write_frames(tmp_path / "images" / "d.mkv", [paint(PICTURES[0])], ("ffv1", "bgr0"), rate=10)
    sources, _ = find_sources([str(tmp_path / "images")])
    annotate(sees, sources, Output(folder=tmp_path / "out", json=True, tables=TableFiles(txt=True)))
    labels = tmp_path / "out" / "labels"
    found = sorted(str(path.relative_to(labels)) for path in labels.rglob("*.txt"))
    assert found == ["d_000000.txt", "train/0011.txt", "train/0012.txt", "train/0013.txt"]
    assert (labels / "train" / "0012.txt").read_text() == ""
    label, *numbers = (labels / "train" / "0013.txt").read_text().split()
    assert label == "2" and len(numbers) == 5
    x, y, width, height = (float(number) for number in numbers[:4])
    assert (x * 144, y * 96, width * 144, height * 96) == pytest.approx((48, 60, 36, 24), abs=2e-3)


def test_the_tables_have_the_tracks() -> None:
    result = Result(
        boxes=np.array([[0, 0, 10, 20], [5, 5, 15, 15]], np.float32),
        scores=np.array([0.9, 0.8], np.float32),
        labels=np.array([0, 1]),
        names=["green", "red"],
        size=(40, 20),
        tracks=np.array([3, -1]),
    )
    assert yolo_lines(result) == [
        "0 0.250000 0.250000 0.500000 0.500000 0.900000 3",
        "1 0.500000 0.250000 0.500000 0.250000 0.800000",
    ]
    found = result.to_dict()["detections"]
    assert isinstance(found, list) and [one["track"] for one in found] == [3, None]
    assert result.captions() == ["green #3", "red"]
    assert result.to_dataframe()["track"].tolist() == pytest.approx([3, float("nan")], nan_ok=True)


def test_nothing_half_written(sees: Detector, tmp_path: Path, annotations: Path) -> None:
    """Of a run that ends with an error there is no table, and the one that was there stays."""
    (tmp_path / "found.csv").write_text("mine")
    sources, _ = find_sources([str(tmp_path / "images")])
    files = TableFiles(csv=tmp_path / "found.csv", coco=tmp_path / "images" / "train" / "0011.png" / "a.json")
    with pytest.raises(UserError, match=r"a\.json: cannot be written"):
        annotate(sees, sources, Output(folder=tmp_path / "out", json=True, tables=files))
    assert (tmp_path / "found.csv").read_text() == "mine"
