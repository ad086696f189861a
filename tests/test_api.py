"""The public names: what ``import fsaf`` offers, and that it is quick."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from rich.console import Console

import fsaf
from fsaf.recipe import build_config, load_recipe
from fsaf.training import trainer
from synthetic import recipe, write_eight

pytestmark = pytest.mark.slow


def test_every_public_name_is_there_and_no_other() -> None:
    assert all(getattr(fsaf, name) is not None for name in fsaf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = fsaf.trian


def test_importing_it_imports_no_pytorch() -> None:
    code = "import sys, fsaf; fsaf.Config, fsaf.UserError; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    code = "import sys, fsaf.cli; fsaf.cli.main(['info', '--nothing']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


def test_a_detector_from_data_to_file_in_python(tmp_path: Path) -> None:
    write_eight(tmp_path / "data")
    faults = fsaf.check(tmp_path / "data")
    assert {split: found["images"] for split, found in faults.items()} == {"train": 8, "val": 3}

    values = recipe(tmp_path / "data", tmp_path / "run", train__max_steps=1)
    with Path(os.devnull).open("w") as nowhere:
        run = fsaf.train(build_config(values, where="the test"), console=Console(file=nowhere))
    checkpoint = run / "checkpoints" / "last.pt"
    assert "fsaf.train(config)" in (run / "commands.jsonl").read_text()

    metrics = fsaf.evaluate(checkpoint)
    assert metrics["images"] == 3 and 0 <= metrics["AP"] <= 1
    detector = fsaf.load(checkpoint, "cpu")
    assert fsaf.evaluate(detector, tmp_path / "data")["AP"] == metrics["AP"]

    assert detector.evaluate(tmp_path / "data") == fsaf.evaluate(detector, tmp_path / "data") | {
        "images_per_second": ANY
    }

    report = detector.export(tmp_path / "model.onnx")
    assert report.comparison is not None and report.comparison.images == 3
    image = tmp_path / "data" / "images" / "val" / "0501.png"
    assert len(fsaf.load(report.path).predict(image, score_threshold=0.05)) == len(
        detector.predict(image, score_threshold=0.05)
    )


def test_a_mistake_is_one_kind_of_error(tmp_path: Path) -> None:
    for call in (fsaf.load, fsaf.evaluate, fsaf.check):
        with pytest.raises(fsaf.UserError, match="nowhere"):
            call(tmp_path / "nowhere")


SMALL: dict[str, Any] = {
    "device": "cpu",
    "data__workers": 0,
    "data__shapes": [[64, 96]],
    "data__short_side": 64,
    "data__long_side": 96,
    "model__backbone": "test_efficientnet",
    "model__weights": "none",
    "train__max_steps": 1,
}


def test_training_by_the_name_of_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_eight(tmp_path / "cells")
    run = fsaf.train("lite0", data="cells", out=tmp_path / "run", **SMALL)
    assert run.folder == tmp_path / "run" and "step 1/1" in capsys.readouterr().out
    assert run.metrics is not None and run.metrics["AP"] == fsaf.evaluate(run)["AP"]
    assert repr(run) == repr(fsaf.Run(str(run.folder))) and repr(run).startswith(f"Run({run.folder}: ")
    detector = run.detector("cpu")
    assert type(detector) is fsaf.Detector and detector.classes.names == ("green", "red", "blue")
    detector.save(tmp_path / "mine.pt")
    assert fsaf.load(tmp_path / "mine.pt", "cpu").classes == detector.classes
    (command,) = (json.loads(line)["command"] for line in (run / "commands.jsonl").read_text().splitlines())
    assert command.startswith("fsaf.train('lite0', data='cells', out=") and "train__max_steps=1" in command

    more = fsaf.train(resume=run, train__max_steps=2)
    assert more.folder == run.folder and "step 2/2" in capsys.readouterr().out


def test_training_writes_the_report_as_the_command_does(tmp_path: Path) -> None:
    write_eight(tmp_path / "cells")
    out, said = tmp_path / "run", io.StringIO()
    run = fsaf.train("lite0", tmp_path / "cells", out, console=Console(file=said, width=400), **SMALL)
    assert "Training images" in (run / "report.html").read_text(encoding="utf-8")
    assert said.getvalue().splitlines()[-1] == f"report: {out / 'report.html'}"

    (run / "report.html").unlink()
    (run / "report.html").mkdir()  # where no page can be written
    again = fsaf.train(resume=run, console=Console(file=said, width=400))
    assert again.metrics == run.metrics and "report.html could not be written" in said.getvalue()


def test_settings_are_read_as_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[fsaf.Config] = []
    monkeypatch.setattr(trainer, "train", lambda config, *_, **__: configs.append(config) or Path("x"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells").mkdir()
    (tmp_path / "mine.yaml").write_text("optim: {lr: 0.5}")
    for first in ({"config": "cells"}, {"data": "cells"}, {"data": tmp_path / "cells"}):
        fsaf.train(**first, train__max_steps=None, data__scale=(0.5, 1), **{"optim.lr": 0.25})
        config = configs.pop()
        assert (config.out, Path(str(config.data.root)).name) == ("runs/cells", "cells")
        assert (config.train.max_steps, config.data.scale, config.optim.lr) == (None, (0.5, 1.0), 0.25)
    fsaf.train(tmp_path / "mine.yaml", init="a.pt")
    assert (configs[-1].optim.lr, configs[-1].init, configs[-1].out) == (0.5, "a.pt", "runs/mine")
    fsaf.train(configs[-1], out="other", model__backbone="resnet18")
    assert (configs[-1].optim.lr, configs[-1].out, configs[-1].model.backbone) == (0.5, "other", "resnet18")
    assert load_recipe("lite0").model.mean != configs[-1].model.mean


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"config": "lite1"}, "lite1: no such recipe file"),
        ({"config": "lite0", "train__epocs": 3}, "did you mean '--train.epochs'"),
        ({"config": "lite0", "train__epochs": "many"}, "train.epochs"),
        ({"config": "lite0", "train__epochs": object()}, "train.epochs = <object"),
        ({"config": "lite0", "optim__lr": -1}, "optim.lr = -1.0: must be above 0"),
        ({}, "give a recipe"),
        ({"resume": "nowhere"}, "nowhere: is not a run folder"),
    ],
)
def test_mistakes_in_settings_are_those_of_the_command_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(fsaf.UserError, match=message):
        fsaf.train(**given)
