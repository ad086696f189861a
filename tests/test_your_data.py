"""A data set of each format through the whole command line; names from strangers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from fsaf.cli import main
from fsaf.config import Config, DataConfig, ModelConfig
from fsaf.data.faults import Faults
from fsaf.data.readers.coco import read_coco
from fsaf.data.readers.formats import find_splits
from fsaf.data.records import Classes, Records
from fsaf.detection.detector import Detector
from fsaf.model.detector import FSAF
from fsaf.recipe import load_recipe
from fsaf.reporting.report import write_report
from fsaf.scoring.evaluate import evaluate
from fsaf.scoring.metrics import coco_metrics
from fsaf.scoring.table import format_table
from other_formats import write_voc, write_yolo
from synthetic import COLORS, NAMES, Picture, SeesBadly, eight_pictures, recipe, write_coco

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures as COCO, VOC and YOLO."""
    folder = tmp_path_factory.mktemp("formats")
    crowd = Picture(height=64, width=96, objects=[(2, 2, 20, 20, 7)], crowds=[(40, 8, 50, 50, 3)])
    write_coco(folder / "coco", eight_pictures())
    write_coco(folder / "coco", [*eight_pictures(1)[:5], crowd], "val", first_id=501)
    records = {n: s.read(None, Faults(), DataConfig()) for n, s in find_splits(folder / "coco").items()}
    write_voc(folder / "voc", records)
    write_yolo(folder / "yolo", records)
    return folder


def own_recipe(folder: Path, data: Path) -> str:
    values = recipe(data, folder / "out", model__backbone="test_efficientnet", train__epochs=1)
    del values["data"]["train"], values["data"]["val"]
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.mark.parametrize("name", ["coco", "voc", "yolo"])
def test_the_folder_alone_trains_evaluates_and_exports(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["train", own_recipe(tmp_path, root / name)]) == 0
    out, _ = capsys.readouterr()
    assert "8 images, 3 classes" in out and "AP" in out
    best = tmp_path / "out" / "checkpoints" / "best.pt"
    assert main(["evaluate", str(best), "--out", str(tmp_path / "scores")]) == 0
    out, _ = capsys.readouterr()
    assert "green" in out and "6 images" in out
    predictions = json.loads((tmp_path / "scores" / "predictions.json").read_text())
    truth = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    assert truth["per_class"].keys() == {"green", "red", "blue"} and isinstance(predictions, list)
    if name == "yolo":  # export takes seconds; it opens the split by the same function
        options = ["--size", "64", "96", "--check", "2", "--out", str(tmp_path / "model.onnx")]
        assert main(["export", str(best), *options]) == 0


def detector(records: Records) -> Detector:
    """Return a poor detector of colours, with labels in order of category ids, unlike those of the data."""
    order = [NAMES[id_] for id_ in sorted(COLORS)]
    classes = Classes(
        names=tuple(order), ids=tuple(records.classes.ids[records.classes.names.index(n)] for n in order)
    )
    return Detector(SeesBadly().eval(), classes, Config(model=ModelConfig(), predict=Config().predict))


def test_figures_are_the_same_in_every_format(root: Path) -> None:
    data = DataConfig(batch_size=2, workers=0, short_side=64, long_side=96, shapes=[(64, 96)])
    figures: dict[str, Any] = {}
    for name in ("coco", "voc", "yolo"):
        split = find_splits(root / name)["val"]
        own = split.read(None, Faults(), data)
        sees = detector(own)
        records = split.read(sees.classes, Faults(), data) if name != "coco" else own
        metrics, predictions = evaluate(sees, records, data)
        assert predictions
        figures[name] = {key: value for key, value in metrics.items() if key != "images_per_second"}
    assert figures["coco"]["AP"] > 0.01 and figures["coco"]["images"] == 6
    # VOC's difficult objects count as crowd regions. YOLO has none, so detections there are wrong.
    same_figures(figures["voc"], figures["coco"])
    assert figures["yolo"]["AR100"] == pytest.approx(figures["coco"]["AR100"])
    assert figures["yolo"]["AP"] <= figures["coco"]["AP"]


def same_figures(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, dict):
            assert value == {name: pytest.approx(row) for name, row in other[key].items()}
        else:
            assert value == pytest.approx(other[key])


def test_evaluation_on_other_data_by_its_folder(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = Classes(names=("blue", "red"), ids=(1, 2))
    config = load_recipe("lite0", ["--model.backbone=test_efficientnet", "--model.weights=none"])
    path = tmp_path / "best.pt"
    Detector(FSAF(config.model, 2).eval(), classes, config).save(path)
    options = ["--data.root", str(root / "voc"), "--out", str(tmp_path)]
    assert main(["evaluate", str(path), *options, "--data.workers", "0"]) == 0
    _, err = capsys.readouterr()
    assert "boxes of classes that the detector does not have: " in err
    options[1] = str(root / "nowhere")
    assert main(["evaluate", str(path), *options]) == 2
    assert "nowhere: no such file or folder" in capsys.readouterr().err


def test_predict_refuses_what_is_too_large(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_recipe("lite0", ["--model.backbone=test_efficientnet", "--model.weights=none"])
    Detector(FSAF(config.model, 1).eval(), Classes(names=("x",), ids=(1,)), config).save(tmp_path / "best.pt")
    Image.new("L", (300, 200)).save(tmp_path / "a.png")
    command = ["predict", str(tmp_path / "best.pt"), str(tmp_path / "a.png"), "--format", "json"]
    assert main(command) == 0
    assert main([*command, "--data.max_pixels", "59999"]) == 2
    assert "300 x 200 is more than data.max_pixels = 59,999" in capsys.readouterr().err


# Names from strangers.

EVIL = "<script>alert(1)</script>[bold red]\x1b[2J\x07\u202e & \"quoted' \ud800"


def test_the_report_escapes_names_and_paths(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    annotations = {
        "images": [{"id": 1, "file_name": f"{EVIL}.png", "width": 50, "height": 50}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20]}],
        "categories": [{"id": 1, "name": EVIL}],
    }
    metrics = coco_metrics(annotations, [])
    (run / "evaluation.json").write_text(json.dumps(metrics))
    (run / "config.yaml").write_text(f"data:\n  root: {json.dumps(EVIL)}\n")
    page = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "\x1b" not in page and "\x07" not in page and "\u202e" not in page
    table = format_table(metrics)
    assert all(line.isprintable() for line in table.splitlines()) and "[bold red]" in table


def test_no_control_characters_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_coco(tmp_path / "data", eight_pictures())
    shutil.copytree(tmp_path / "data" / "images" / "train", tmp_path / "data" / "images" / "val")
    data = json.loads(path.read_text())
    for category in data["categories"]:
        category["name"] = f"{EVIL}{category['id']}"
    path.write_text(json.dumps(data))
    (path.parent / "val.json").write_text(json.dumps(data))
    assert read_coco(path, tmp_path / "data" / "images" / "train").classes.names[0].endswith("3")
    out = tmp_path / "out"
    assert main(["train", own_recipe(tmp_path, tmp_path / "data")]) == 0
    best = str(out / "checkpoints" / "best.pt")
    assert main(["evaluate", best]) == 0
    picture = str(tmp_path / "data" / "images" / "train" / "0011.png")
    options = ["--out", str(tmp_path / "drawn"), "--score-threshold", "0", "--max-detections", "3"]
    assert main(["predict", best, picture, *options]) == 0
    assert main(["convert", best, str(tmp_path / "weights.safetensors")]) == 0
    assert main(["check", str(tmp_path / "data")]) == 0
    data["images"][0]["file_name"] = EVIL
    path.write_text(json.dumps(data))
    assert main(["train", own_recipe(tmp_path, tmp_path / "data"), "--out", str(tmp_path / "other")]) == 2
    text = "".join(capsys.readouterr())
    assert all(line.isprintable() for line in text.splitlines()), [
        line for line in text.splitlines() if not line.isprintable()
    ]
