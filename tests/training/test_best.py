"""``best.pt``, the evaluation of the run folder and the last line are of the same network."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import fsaf
from fsaf.checkpoints.format import load_checkpoint
from fsaf.data.readers.splits import open_split
from fsaf.recipe import build_config
from fsaf.scoring.evaluate import evaluate
from fsaf.training import trainer, validate
from synthetic import Picture, recipe, write_coco, write_eight

pytestmark = pytest.mark.slow


def train(root: Path, out: Path, **overrides: Any) -> list[str]:
    """Train for four epochs of two steps; return the lines on the console."""
    text = io.StringIO()
    settings = {"model__backbone": "test_efficientnet", "model__convs": 0, "train__epochs": 4}
    config = build_config(recipe(root, out, **{**settings, **overrides}), where="the test's recipe")
    trainer.train(config, Console(file=text, width=400))
    return text.getvalue().splitlines()


def score(monkeypatch: pytest.MonkeyPatch, *values: float | None) -> None:
    """Let the evaluations of a training find these APs, one after the other."""
    left = list(values)

    def scored(*given: Any, **options: Any) -> Any:
        metrics, predictions = evaluate(*given, **options)
        metrics["AP"] = left.pop(0)
        return metrics, predictions

    monkeypatch.setattr(validate, "evaluate", scored)


def curve(out: Path) -> list[Any]:
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [record["AP"] for record in records if "AP" in record]


def test_the_evaluation_of_a_run_is_that_of_its_best_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of four is the best; the detector in ``best.pt`` finds what predictions.json lists."""
    write_eight(tmp_path)
    out = tmp_path / "out"
    score(monkeypatch, 0.1, 0.3, 0.2, 0.0)
    lines = train(tmp_path, out, predict__score_threshold=0.0)
    best = out / "checkpoints" / "best.pt"
    assert load_checkpoint(best).step == 4
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert (evaluation["AP"], evaluation["epoch"], evaluation["step"]) == (0.3, 2, 4)
    assert lines[-1] == f"trained; everything is in {out}; best AP 0.300, of epoch 2 of 4: {best}"
    assert curve(out) == [0.1, 0.3, 0.2, 0.0]
    detector = fsaf.load(best, "cpu", fold=False)  # as evaluation does
    records = open_split(detector.config.data, "val", detector.classes)
    _, predictions = evaluate(detector, records, detector.config.data)
    assert len(predictions) > 0
    assert json.loads((out / "predictions.json").read_text()) == predictions


def test_of_equal_networks_the_later_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_eight(tmp_path)
    score(monkeypatch, 0.0, 0.2, 0.2, 0.1)
    lines = train(tmp_path, tmp_path / "out")
    assert load_checkpoint(tmp_path / "out" / "checkpoints" / "best.pt").step == 6
    assert "best AP 0.200, of epoch 3 of 4" in lines[-1]


def test_without_boxes_to_evaluate_on_the_latest_network_is_kept(tmp_path: Path) -> None:
    write_eight(tmp_path)
    write_coco(tmp_path, [Picture(height=64, width=96)] * 2, "val", first_id=501)
    out = tmp_path / "out"
    lines = train(tmp_path, out)
    assert load_checkpoint(out / "checkpoints" / "best.pt").step == 8
    assert curve(out) == [None] * 4
    undefined = [line for line in lines if "AP is undefined:" in line]
    assert len(undefined) == 4 and all("no box" in line for line in undefined)
    assert lines[-1] == (
        f"trained; everything is in {out}; AP is undefined, so best.pt is the latest: "
        f"{out / 'checkpoints' / 'best.pt'}"
    )
    assert json.loads((out / "evaluation.json").read_text())["AP"] is None


def test_without_evaluation_the_last_line_names_the_last_checkpoint(tmp_path: Path) -> None:
    write_eight(tmp_path)
    out = tmp_path / "out"
    lines = train(tmp_path, out, train__evaluate_every=0)
    assert lines[-1] == f"trained; everything is in {out}; not evaluated: {out / 'checkpoints' / 'last.pt'}"


# -- hints ------------------------------------------------------------------------------------------------


def test_an_ap_that_stays_at_zero_gets_a_hint(tmp_path: Path) -> None:
    """Two evaluations in a row, here with scores too low for any detection."""
    write_eight(tmp_path)
    lines = train(tmp_path, tmp_path / "out", train__evaluate_every=2, predict__score_threshold=0.9)
    (hint,) = [line for line in lines if line.startswith("hint: ")]
    assert "AP is still 0 after epoch 4" in hint and "nothing is detected above a score of 0.9" in hint
    assert "optim.lr" in hint and "fsaf check" in hint and "8 steps" in hint


def test_an_ap_above_zero_gets_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_eight(tmp_path)
    score(monkeypatch, 0.0, 0.1, 0.0, 0.0)
    assert not [line for line in train(tmp_path, tmp_path / "out") if line.startswith("hint: ")]
