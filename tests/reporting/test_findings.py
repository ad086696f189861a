"""Sections of a report on predictions and data: made from the run folder, or left out with a note."""

import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fsaf.config import Config
from fsaf.data.readers.splits import open_split
from fsaf.data.records import Classes, ImageRecord, Records
from fsaf.detection.draw import PALETTE
from fsaf.reporting import findings
from fsaf.reporting.report import write_report
from fsaf.reporting.worst import draw_mistakes
from fsaf.scoring import analysis
from fsaf.scoring.matching import match_boxes, tabulate
from run_folder.run_folders import CLASSES, write_run

SECTIONS = (
    "Precision and recall",
    "Confusion",
    "Kinds of error",
    "Which boxes are found",
    "Do scores mean what they say?",
    "Pyramid levels of detections",
    "Worst images",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """A folder of data and the run folder of an evaluation on it."""
    root = tmp_path_factory.mktemp("findings")
    return root, write_run(root)


@pytest.fixture
def run(whole: tuple[Path, Config], tmp_path: Path) -> Path:
    """A copy of that run folder, to change."""
    (tmp_path / "run").mkdir()
    for path in (whole[0] / "run").iterdir():
        (tmp_path / "run" / path.name).write_bytes(path.read_bytes())
    return tmp_path / "run"


def change(path: Path, how: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(how(json.loads(path.read_text()))))


def said(run: Path) -> tuple[str, set[str]]:
    """Return the page and its headings."""
    source = write_report(run).read_text(encoding="utf-8")
    return source, {html.unescape(text) for text in re.findall("<h2>(.*?)</h2>", source)}


def test_every_section_is_there(run: Path, whole: tuple[Path, Config]) -> None:
    source, headings = said(run)
    assert {*SECTIONS, "Data"} <= headings and "Notes" not in headings
    records = open_split(whole[1].data, "val", CLASSES)
    found = tabulate(records, json.loads((run / "predictions.json").read_text()))
    shown = re.findall(r'<td style="--share:([\d.]+)".*?>([\d,]+)</td>', source)
    matrix = analysis.confusion(records, found)
    assert [int(count) for _, count in shown] == matrix.ravel()[:-1].tolist()
    assert [float(share) for share, _ in shown[:4]] == pytest.approx(matrix[0] / matrix[0].sum(), abs=6e-4)
    false, missed = analysis.mistakes(records, found, match_boxes(records, found))
    captions = re.findall(r"<figcaption>\d+.png: .*?\((\d+) wrong, (\d+) missed\)", source)
    assert captions[0] == (str(false.max()), str(missed[np.lexsort((-missed, -false))[0]]))
    assert int(captions[4][1]) == max(
        m for i, m in enumerate(missed) if i not in np.lexsort((-missed, -false))[:4]
    )
    assert source.count("data:image/jpeg") == len(captions) > 4
    curves = analysis.precision_recall(records, found, match_boxes(records, found))
    for curve in curves:
        assert f"{curve.name} <b>{curve.precision.mean():.3f}</b>" in source
    boxes = sum(len(image.boxes) for image in records.images)
    assert re.search(rf'>boxes</th><td class="num">\d+</td><td class="num">{boxes}</td>', source)


def test_data_that_is_gone_is_told_and_the_rest_stands(run: Path) -> None:
    for name in ("evaluation.json", "config.yaml"):
        text = (run / name).read_text()
        (run / name).write_text(re.sub(r'(root"?: )("?)[^\n"]+', r"\1\2/nowhere/at-all", text))
    source, headings = said(run)
    assert not {*SECTIONS, "Data"} & headings and {"Accuracy", "Notes"} <= headings
    for split in ("training", "validation"):
        assert re.search(rf"the {split} split could not be read.*/nowhere/at-all", source)


def test_older_runs_have_neither_levels_nor_data_of_their_own(run: Path) -> None:
    change(
        run / "predictions.json", lambda rows: [{k: v for k, v in r.items() if k != "level"} for r in rows]
    )
    change(run / "evaluation.json", lambda e: {k: v for k, v in e.items() if k not in ("data", "classes")})
    _, headings = said(run)
    assert set(SECTIONS) - headings == {"Pyramid levels of detections"} and "Notes" not in headings


def test_the_split_that_was_evaluated_counts_not_that_of_the_recipe(
    run: Path, whole: tuple[Path, Config]
) -> None:
    """The report after ``fsaf evaluate --data.val...`` on other data."""
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(
        text.replace("val.json", "train.json").replace("images/val", "images/train")
    )
    source, headings = said(run)
    assert set(SECTIONS) <= headings and "Notes" not in headings
    change(run / "evaluation.json", lambda e: {k: v for k, v in e.items() if k != "data"})
    source, headings = said(run)
    assert not set(SECTIONS) & headings and "Data" in headings
    assert "predictions.json does not fit: the predictions are of other images" in source


@pytest.mark.parametrize("content", ["", "{}", "[{}]", "[" * 100_000])
def test_broken_predictions_are_told(run: Path, content: str) -> None:
    (run / "predictions.json").write_text(content)
    source, headings = said(run)
    broken = content != "{}"  # no list of predictions
    assert ("predictions.json" in source) == broken and "Accuracy" in headings


@pytest.mark.parametrize(
    "classes", [{"names": 3}, {"names": ["a"], "ids": []}, {"names": [["a"]], "ids": [[1]]}]
)
def test_broken_classes_and_data_do_not_stop_it(run: Path, classes: Any) -> None:
    change(run / "evaluation.json", lambda e: e | {"classes": classes, "data": {"root": 3, "nothing": 4}})
    source, headings = said(run)
    assert "the validation split could not be read" in html.unescape(source) and "Accuracy" in headings


def test_classes_that_are_no_names_do_not_stop_it(run: Path) -> None:
    odd = {"names": [["a"], None, 3], "ids": [[], {}, "x"]}
    change(run / "evaluation.json", lambda e: e | {"classes": odd})
    _, headings = said(run)
    assert set(SECTIONS) <= headings and "Notes" not in headings  # then those of the annotations are used


def test_a_class_may_be_called_background(run: Path, whole: tuple[Path, Config]) -> None:
    """Only the corner of the confusion matrix is empty; missed boxes are counted."""
    config = whole[1].data
    truth = json.loads((Path(str(config.root)) / str(config.val.annotations)).read_text())
    for entry in truth["categories"]:
        entry["name"] = "background" if entry["id"] == CLASSES.ids[0] else entry["name"]
    (run / "val.json").write_text(json.dumps(truth))

    def renamed(evaluation: dict[str, Any]) -> dict[str, Any]:
        evaluation["data"]["val"]["annotations"] = str(run / "val.json")
        return evaluation | {"classes": {"names": ["background", *CLASSES.names[1:]], "ids": CLASSES.ids}}

    change(run / "evaluation.json", renamed)
    matrix = said(run)[0].split('class="matrix"')[1].split("</table>")[0]
    assert matrix.count('class="nothing"') == 1
    assert matrix.count("--share") == (len(CLASSES) + 1) ** 2 - 1


def test_many_classes_have_a_list_of_pairs_and_extreme_curves() -> None:
    names = [f"class {i}" for i in range(20)] + ["background"]
    matrix = np.eye(21, dtype=int) * 50
    matrix[3, 7], matrix[9, 2], matrix[5, 20], matrix[20, 5] = 4, 8, 99, 99
    assert findings._confused(matrix, names) == [("class 9", "class 2", 8), ("class 3", "class 7", 4)]
    curves = [
        analysis.Curve(name=name, precision=np.full(101, i / 20), best_f1=0, best_score=0)
        for i, name in enumerate(names[:20])
    ]
    legend = re.findall("</i>(.*?) <b>(.*?)</b>", findings._curves(curves))
    assert legend[0] == ("mean of all classes", "0.475") and len(legend) == 7
    assert [name for name, _ in legend[1:]] == [f"class {i}" for i in (19, 18, 17, 2, 1, 0)]


def test_two_classes_of_one_name_are_counted_apart() -> None:
    image = ImageRecord(
        id=1,
        path=Path("a.png"),
        width=400,
        height=200,
        boxes=np.array([[22, 22, 80, 80], [20, 120, 80, 180], [0, 0, 9, 9]], np.float32),
        labels=np.array([0, 0, 1]),
        crowd=np.zeros(3, bool),
    )
    classes = Classes(names=("cat", "cat", "dog"), ids=(3, 5, 7))
    records = Records(images=[image], classes=classes, source=Path("a.json"))
    _, boxes = findings.summarise({"training": findings.OpenSplit(records, Config().data)})
    assert boxes == [("cat (3)", ["2"]), ("cat (5)", ["1"]), ("dog", ["0"])]


def test_colours_tell_right_wrong_and_missed(tmp_path: Path) -> None:
    Image.new("RGB", (400, 200), (120, 120, 120)).save(tmp_path / "a.png")
    image = ImageRecord(
        id=1,
        path=tmp_path / "a.png",
        width=400,
        height=200,
        boxes=np.array([[22, 22, 80, 80], [20, 120, 80, 180]], np.float32),
        labels=np.zeros(2, np.int64),
        crowd=np.zeros(2, bool),
    )
    records = Records(images=[image], classes=Classes(names=("cell",), ids=(1,)), source=Path("a.json"))
    found = analysis.Predictions(
        image=np.full(3, 1),
        label=np.zeros(3, np.int64),
        score=np.array([0.9, 0.8, 0.1]),
        boxes=np.array([[20, 20, 80, 80], [200, 20, 280, 80], [120, 120, 180, 180]], float),
        level=np.zeros(3, np.int64),
    )
    truth, ignored = np.array([0, -1, -1]), np.zeros(3, bool)
    drawn = np.asarray(draw_mistakes(image, found, truth, ignored, records, Config().data))
    colours = {tuple(pixel) for pixel in drawn[18:82, 18:22].reshape(-1, 3).tolist()}
    assert PALETTE[0] in colours and PALETTE[1] not in colours  # right
    colours = {tuple(pixel) for pixel in drawn[50:82, 198:204].reshape(-1, 3).tolist()}
    assert PALETTE[1] in colours and PALETTE[0] not in colours  # wrong
    missed = drawn[115:185, 18:84].reshape(-1, 3).tolist()
    assert list(PALETTE[4]) in missed and list(PALETTE[6]) not in missed
    assert (drawn[116:184, 116:184] == 120).all()  # the score is too low to be shown
    small = replace(image, path=tmp_path / "small.png")
    Image.new("RGB", (100, 50), (120, 120, 120)).save(small.path)
    assert draw_mistakes(small, found, truth, ignored, records, Config().data).size == (400, 200)
