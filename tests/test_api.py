"""The public names: what ``import fsaf`` offers, and that it is quick."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import fsaf
from fsaf.recipe import build_config
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
        out = fsaf.train(build_config(values, where="the test"), Console(file=nowhere))
    checkpoint = out / "checkpoints" / "last.pt"

    metrics = fsaf.evaluate(checkpoint)
    assert metrics["images"] == 3 and 0 <= metrics["AP"] <= 1
    detector = fsaf.load(checkpoint, "cpu")
    assert fsaf.evaluate(detector, tmp_path / "data")["AP"] == metrics["AP"]

    report = fsaf.export(detector, tmp_path / "model.onnx")
    assert report.comparison is not None and report.comparison.images == 3
    image = tmp_path / "data" / "images" / "val" / "0501.png"
    assert len(fsaf.load(report.path).predict(image, score_threshold=0)) == len(
        detector.predict(image, score_threshold=0)
    )


def test_a_mistake_is_one_kind_of_error(tmp_path: Path) -> None:
    for call in (fsaf.load, fsaf.evaluate, fsaf.check):
        with pytest.raises(fsaf.UserError, match="nowhere"):
            call(tmp_path / "nowhere")
