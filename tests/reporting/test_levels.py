"""A report says so if boxes learn on lower levels than their sizes suggest."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from fsaf.config import DataConfig
from fsaf.data.records import Classes, ImageRecord, Records
from fsaf.reporting.levels import level_advice, shares_by_size
from fsaf.reporting.report import write_report
from run_folder.run_folders import write_run


def records(sides: list[float], crowd: list[bool]) -> Records:
    boxes = np.array([[0, 0, side, side] for side in sides], np.float32).reshape(-1, 4)
    image = ImageRecord(
        id=1,
        path=Path("a.jpg"),
        width=1000,
        height=500,
        boxes=boxes,
        labels=np.zeros(len(sides), np.int64),
        crowd=np.array(crowd, bool),
    )
    return Records(images=[image], classes=Classes(names=("a",), ids=(1,)), source=Path())


def test_shares_are_of_boxes_in_the_resized_image() -> None:
    # The image is halved to 250 x 500; P4 begins at 112 pixels there, P5 at 224.
    data = DataConfig(short_side=250, long_side=500, shapes=((256, 512),))
    found = shares_by_size(records([220, 230, 440, 460, 900], [False] * 4 + [True]), data)
    assert found is not None and found.tolist() == [0.25, 0.5, 0.25, 0, 0]
    assert shares_by_size(records([900], [True]), data) is None


@pytest.mark.parametrize(
    ("last", "by_size", "said"),
    [
        ([0.03, 0.97, 0, 0, 0], [0, 0.16, 0.84, 0, 0], True),  # raccoons in batches of four
        ([0, 0.31, 0.69, 0, 0], [0, 0.16, 0.84, 0, 0], False),  # in batches of eight
        ([0.75, 0.25, 0, 0, 0], [0.81, 0.19, 0, 0, 0], False),  # digits, on higher levels than by size
    ],
)
def test_advice_is_given_if_levels_are_lower_than_by_size(
    last: list[float], by_size: list[float], said: bool
) -> None:
    start = [0.0, 0, 0, 0, 1.0]
    text = level_advice([start] * 6 + [last] * 2, np.array(by_size))
    assert bool(text) == said
    if said:
        assert "P3 3%, P4 97% at the end; by their sizes P4 16%, P5 84%" in text
        assert "objective.level_choice at_least_size" in text


def test_without_records_or_boxes_there_is_no_advice() -> None:
    assert level_advice([], np.array([0.0, 0, 1, 0, 0])) == ""
    assert level_advice([[1.0, 0, 0, 0, 0]], None) == ""


@pytest.mark.parametrize("low", [True, False])
def test_the_page_shows_it(tmp_path: Path, low: bool) -> None:
    write_run(tmp_path)
    settings, metrics = (tmp_path / "run" / name for name in ("config.yaml", "metrics.jsonl"))
    values = yaml.safe_load(settings.read_text())
    values["data"] |= {"short_side": 1280, "long_side": 1920, "shapes": [[1280, 1920]]}  # enlarged 20 times
    settings.write_text(yaml.safe_dump(values))
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    for line in lines:
        if "level_share" in line:
            line["level_share"] = [1.0, 0, 0, 0, 0] if low else [0, 0, 0, 0, 1.0]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert ("Boxes learn on low levels: P3 100% at the end" in page) == low
