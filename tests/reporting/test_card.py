"""The figures, the snippet and the command of the model card are right."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import fsaf
from fsaf.checkpoints.format import Checkpoint, load_checkpoint
from fsaf.checkpoints.hub import CARD
from fsaf.config import Config, to_dict
from fsaf.data.records import Classes
from fsaf.errors import UserError
from fsaf.recipe import load_recipe
from fsaf.reporting.card import as_command, read_figures, write_card
from fsaf.scoring.metrics import METRICS
from published import picture


def table(text: str, head: str) -> dict[str, list[str]]:
    """Return the first cell of each row to the other cells, for the table that starts with ``head``."""
    rows = text.split(head)[1].split("\n\n")[0].splitlines()[2:]
    return {
        cells[0].strip(): [cell.strip() for cell in cells[1:]]
        for row in rows
        if (cells := row.split("|")[1:-1])
    }


def test_figures_of_the_card_are_those_of_the_evaluation(trained_run: Path, published: Path) -> None:
    text = (published / CARD).read_text()
    figures = json.loads((trained_run / "evaluation.json").read_text())
    shown = table(text, "|  |  | meaning |")
    assert list(shown) == list(METRICS)
    for key, (value, _) in shown.items():
        known = figures[key] is not None and figures[key] >= 0
        assert value == (f"{figures[key]:.3f}" if known else "-")
    of_classes = table(text, "| class | AP | AP50 | boxes |")
    assert {name: int(row[2]) for name, row in of_classes.items()} == {
        name: row["boxes"] for name, row in figures["per_class"].items()
    }
    meta = yaml.safe_load(text.split("---\n")[1])
    assert (meta["library_name"], meta["license"], meta["pipeline_tag"]) == (
        "fsaf",
        "mit",
        "object-detection",
    )
    (result,) = meta["model-index"][0]["results"]
    assert meta["model-index"][0]["name"] == "mine" and result["dataset"]["name"] == "coloured_boxes"
    assert result["metrics"][0] == {"type": "AP", "name": "AP", "value": round(figures["AP"], 4)}
    assert "3 images of coloured\\_boxes" in text and "green, red, blue" in text


def test_the_snippet_of_the_card_runs(
    trained_run: Path,
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(published.parent)
    snippet = (published / CARD).read_text().split("```python\n")[1].split("```")[0]
    assert '"photo.jpg"' in snippet
    exec(snippet.replace('"photo.jpg"', repr(str(picture(trained_run)))).replace("0.3)", "0.0)"), {})
    assert len(capsys.readouterr().out.splitlines()) == len(
        fsaf.load(published).predict(picture(trained_run), score_threshold=0)
    )


def test_the_command_of_the_card_gives_the_same_settings(trained_run: Path, published: Path) -> None:
    config = load_checkpoint(trained_run / "checkpoints" / "last.pt").config
    command = (published / CARD).read_text().split("```sh\n")[1].split("\n")[0]
    assert command == as_command(config)
    program, verb, name, *overrides = shlex.split(command)
    assert (program, verb) == ("fsaf", "train")
    again = load_recipe(name, overrides)
    for part in ("train", "objective", "predict", "optim", "model"):
        assert to_dict(again)[part] == to_dict(config)[part]
    again.data.root, again.data.workers = config.data.root, config.data.workers
    assert to_dict(again.data) == to_dict(config.data)
    for name in ("lite0", "fsaf_r50_fpn_1x_coco_paper"):
        assert as_command(load_recipe(name)) == f"fsaf train {name} --data.root DATA"
    config = load_recipe(
        "bccd_lite0", ["--init", "/home/me/a.pt", "--data.root", "/x", "--train.epochs", "3"]
    )
    assert as_command(config) == "fsaf train bccd_lite0 --data.root DATA --init a.pt --train.epochs 3"
    config.init = "hf:me/mine@v2"
    assert "--init hf:me/mine@v2 " in as_command(config)


def test_a_card_says_what_it_does_not_know(trained_run: Path) -> None:
    checkpoint = load_checkpoint(trained_run / "checkpoints" / "last.pt")
    checkpoint.step = None
    checkpoint.classes = replace(checkpoint.classes, names=("<b>*green*|", *checkpoint.classes.names[1:]))
    text = write_card(checkpoint, {"AP": None, "images": 4}, name="x", folder="x", repository="me/x")
    assert "does not say how it was trained" in text and "No licence has been stated" in text
    assert "fsaf.load('hf:me/x')" in text and "`detector.model`" in text
    assert "| AP | - |" in text and "\\<b\\>\\*green\\*\\|" in text and "license" not in text.split("---")[1]


def test_a_card_of_other_figures_and_names(trained_run: Path) -> None:
    checkpoint = load_checkpoint(trained_run / "checkpoints" / "last.pt")
    figures = {"AP": 0.5, "per_class": {"green": 0.25, "red": {"AP": None}}}
    text = write_card(checkpoint, figures, name="x", folder="my hub")
    assert "| green | 0.250 | - | - |" in text and "| red | - | - | - |" in text
    assert "`fsaf predict 'my hub' photo.jpg`, `fsaf export 'my hub' --out" in text


@pytest.mark.parametrize(
    ("own", "figure", "fits"), [(None, None, True), (None, 0.3, True), (0.3, None, False), (0.3, 0.3, True)]
)
def test_evaluations_without_any_box(
    tmp_path: Path, own: float | None, figure: float | None, fits: bool
) -> None:
    """AP is null if the split has no box."""
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 5, "epoch": 1, "AP": own}) + "\n")
    (tmp_path / "evaluation.json").write_text(json.dumps({"AP": figure}))
    checkpoint = Checkpoint(config=Config(), classes=Classes(names=("a",), ids=(1,)), weights={}, step=5)
    if fits:
        assert read_figures(tmp_path, checkpoint, None) == {"AP": figure}
    else:
        with pytest.raises(UserError, match="is of other weights"):
            read_figures(tmp_path, checkpoint, None)
