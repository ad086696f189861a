"""Runs side by side: the best figures, differences, and runs that cannot be compared."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fsaf.data.readers.splits import open_split
from fsaf.errors import UserError
from fsaf.reporting.compare import names_of, write_comparison
from fsaf.scoring.metrics import METRICS
from fsaf.scoring.results import to_coco_results
from run_folder.run_folders import write_run as write_whole_run
from synthetic import CLASSES


def write_run(run: Path, ap: float | None, lr: float, **evaluation: Any) -> Path:
    run.mkdir(parents=True)
    figures = dict.fromkeys(METRICS, 0.5) | {"AP": ap, "images": 7, "images_per_second": 20.0}
    figures |= {"per_class": {"cat": {"AP": ap, "AP50": 1, "boxes": 3}, run.name: {"AP": 0.1}}} | evaluation
    (run / "evaluation.json").write_text(json.dumps(figures))
    config = {"out": str(run), "optim": {"lr": lr, "name": "sgd"}, "data": {"shapes": [[64, 96]]}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [{"step": at, "loss": lr * at, "images_per_second": 10 * lr, "step_seconds": 2} for at in (1, 2)]
    lines += [{"step": 2, "epoch": epoch, "AP": 0.1 * epoch} for epoch in (1, 2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def compare(*runs: Path) -> str:
    return write_comparison(runs, runs[0].parent / "page.html").read_text(encoding="utf-8")


def row(source: str, name: str) -> list[tuple[str, str]]:
    """Return (class, text) of each cell of a row."""
    found = re.search(rf'<th scope="row">{re.escape(name)}(?:<small>.*?)?</th>(.*?)</tr>', source)
    return re.findall(r'<td class="(.*?)">(.*?)</td>', found[1]) if found else []


def test_the_best_of_each_row_is_marked(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / n, ap, 1) for n, ap in (("a", 0.4), ("b", 0.6004), ("c", 0.6001), ("d", None))
    ]
    source = compare(*runs)
    marked = [("num", "0.400"), ("num best", "0.600"), ("num best", "0.600"), ("num", "-")]
    assert row(source, "AP") == row(source, "cat") == marked
    assert row(source, "AP50") == [("num", "0.500")] * 4  # all are equal: none is the best
    assert row(source, "b") == [("num", "-"), ("num", "0.100"), ("num", "-"), ("num", "-")]


def test_curves_differences_and_speed(tmp_path: Path) -> None:
    source = compare(write_run(tmp_path / "slow", 0.4, 1), write_run(tmp_path / "fast", 0.5, 3))
    assert row(source, "optim.lr") == [("num", "1"), ("num", "3")]
    differ = source.split("Settings that differ")[1].split("</section>")[0]
    assert "optim.name" not in differ and "data.shapes" not in differ and "out" not in differ
    assert row(source, "training, median") == [("num", "10.0 images/s"), ("num", "30.0 images/s")]
    for title, ends in (("Loss", ("2.00", "6.00")), ("AP on the validation split", ("0.200", "0.200"))):
        chart = re.search(rf'aria-label="{title}: (.*?)"', source)
        assert chart and chart[1] == f"slow ends at {ends[0]}; fast ends at {ends[1]}"
    assert "do not compare" not in source and "Notes" not in source


def test_nothing_differs(tmp_path: Path) -> None:
    assert "the configs are the same" in compare(*(write_run(tmp_path / n, 0.4, 1) for n in "ab"))


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"images": 8}, False),
        ({"data": {"root": "x", "val": {"images": "test"}}}, False),
        ({"data": {"root": "x", "val": {"images": "val"}, "batch_size": 3}}, True),
        ({"data": {"root": str(Path("x").resolve()), "val": {"images": "val"}}}, True),
        ({"data": {"root": "./x/", "val": {"images": "val"}}}, True),
        ({"data": {"root": None, "val": {"images": "val"}}}, False),
        ({}, True),  # older runs do not have this record
    ],
)
def test_evaluations_of_other_images_are_told(tmp_path: Path, other: dict[str, Any], same: bool) -> None:
    data = {"root": "x", "val": {"images": "val"}}
    runs = write_run(tmp_path / "a", 0.4, 1, data=data), write_run(tmp_path / "b", 0.5, 1, **other)
    assert ("figures do not compare" in compare(*runs)) != same


def test_what_is_missing_or_broken_is_a_dash_or_a_note(tmp_path: Path) -> None:
    (tmp_path / "<b>empty").mkdir()
    broken = write_run(tmp_path / "broken", 0.4, 1)
    for name in ("evaluation.json", "config.yaml", "metrics.jsonl"):
        (broken / name).write_text("on: 2024-13-45" if name == "config.yaml" else "{: [")
    source = compare(write_run(tmp_path / "a", 0.4, 1), tmp_path / "<b>empty", broken)
    assert [text for _, text in row(source, "AP")] == ["0.400", "-", "-"]
    assert "&lt;b&gt;empty" in source and "<b>empty" not in source
    for name in ("evaluation.json", "config.yaml", "metrics.jsonl"):
        assert re.search(f"broken: {name}.*could|broken: {name} is not readable", source)


def test_names_tell_runs_apart() -> None:
    assert names_of([Path("/x/a"), Path("/x/b")]) == ["a", "b"]
    assert names_of([Path("/x/1/run"), Path("/x/2/run")]) == ["1/run", "2/run"]
    assert names_of([Path("/1/r/run"), Path("/2/r/run"), Path("/run")]) == ["1/r/run", "2/r/run", "run"]


def test_mistakes(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 0.4, 1)
    page = tmp_path / "page.html"
    for runs, told in (
        ([run, tmp_path / "nowhere"], "nowhere: no such run folder"),
        ([run, run.parent / "." / "a"], "a: given twice"),
        ([run] * 9, "9 runs; at most 8"),
    ):
        with pytest.raises(UserError, match=told):
            write_comparison(runs, page)
    with pytest.raises(UserError, match="cannot be written"):
        write_comparison([run], run / "config.yaml" / "page.html")
    assert not page.exists()


def test_differences_are_told_from_chance(tmp_path: Path) -> None:
    """The first run is right, the second detects nothing, the boxes of the third are a little off."""
    for name in ("right", "blind", "alike"):
        config = write_whole_run(tmp_path / name)
        records = open_split(config.data, "val", CLASSES)
        found = {
            "right": [
                entry
                for image in records.images
                for entry in to_coco_results(
                    image.id, image.boxes, np.linspace(0.5, 0.9, len(image.boxes)), image.labels, CLASSES.ids
                )
            ],
            "blind": [],
        }
        found["alike"] = [
            {**entry, "bbox": [entry["bbox"][0] + 0.1, *entry["bbox"][1:]]} for entry in found["right"]
        ]
        (tmp_path / name / "run" / "predictions.json").write_text(json.dumps(found[name]))
    source = compare(*(tmp_path / name / "run" for name in ("right", "blind", "alike")))
    assert row(source, "right/run") == []
    assert row(source, "blind/run")[0][1] == "-1.000" and source.count("more than chance") == 1
    assert source.count("within chance") == 1


def test_predictions_of_other_images_are_not_compared(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_whole_run(tmp_path / name)
    path = tmp_path / "b" / "run" / "predictions.json"
    path.write_text(json.dumps([{**entry, "image_id": 10**6} for entry in json.loads(path.read_text())]))
    source = compare(tmp_path / "a" / "run", tmp_path / "b" / "run")
    assert "not compared image by image" in source and "than chance" not in source
