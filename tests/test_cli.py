"""The command line: exit statuses, one message for a mistake, nothing written by a command that failed."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import fsaf
from fsaf import help
from fsaf.cli import main, make_parser
from fsaf.config import Config, to_dict
from fsaf.data.records import Classes
from fsaf.help import options_of
from fsaf.model.detector import FSAF
from fsaf.recipe import build_config
from fsaf.results.draw import draw_result
from fsaf.results.predict import Detector
from synthetic import COLORS, eight_pictures, recipe, write_coco

VERBS = sorted(options_of(make_parser()))
TINY: dict[str, Any] = {"model__backbone": "test_efficientnet"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_coco(folder, eight_pictures())
    write_coco(folder, eight_pictures(1)[:3], "val", first_id=501)
    return folder


@pytest.fixture(scope="module")
def checkpoint(root: Path) -> Path:
    """Untrained, with a detection everywhere."""
    torch.manual_seed(0)
    config = build_config(recipe(root, root / "out", **TINY, predict={"score_threshold": 0.0}), where="")
    classes = Classes(names=("green", "red", "blue"), ids=(3, 7, 90))
    path = root / "run" / "checkpoints" / "best.pt"
    Detector(FSAF(config.model, 3).eval(), classes, config).save(path)
    return path


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The data set, to be damaged."""
    shutil.copytree(root, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def write_recipe(folder: Path, data: Path, **overrides: Any) -> str:
    path = folder / "recipe.yaml"
    values = recipe(data, folder / "out", **{**TINY, **overrides})
    path.write_text(yaml.safe_dump(values))
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], argv: list[str], *told: str) -> None:
    """Exit status 2 and one line on stderr that holds every one of ``told``."""
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"fsaf {argv[0]}: ") and err.endswith("\n")
    assert err.count("\n") == 1 and "Traceback" not in err, err
    for part in told:
        assert part in err
    assert "Traceback" not in out


# Help and version.


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([verb, "--help"])
    assert end.value.code == 0
    assert f"usage: fsaf {verb}" in capsys.readouterr().out


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert all(f"\n  {verb}  " in out for verb in VERBS)


def test_help_of_train_lists_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = capsys.readouterr().out

    def keys(values: dict[str, Any], prefix: str = "") -> list[str]:
        found = []
        for key, value in values.items():
            found += keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"--{prefix}{key} "]
        return found

    names = keys(to_dict(Config()))
    assert len(names) > 50
    assert [name for name in names if name not in out] == []


def test_help_of_train_shows_sections_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "recipe, optim: Optimizer and learning rate" in out
    assert "--optim.lr N Learning rate, for a total batch of base_batch images if scale_lr (0.01)" in out
    assert "--train.precision fp32|bf16|fp16" in out and "--data.shuffle true|false" in out


def test_every_verb_has_its_place_and_examples_that_parse() -> None:
    grouped = [name for names in help.GROUPS.values() for name in names]
    assert sorted(grouped) == VERBS and set(help.EXAMPLES) == {"", *VERBS}
    for verb, examples in help.EXAMPLES.items():
        for example in examples:
            words = shlex.split(example.split(" > ")[0].removeprefix('eval "$(').removesuffix(')"'))
            assert words[0] == "fsaf"
            if verb:
                args, unknown = make_parser().parse_known_args(words[1:])
                assert (args.verb, unknown) == (verb, [])


def test_version_in_a_process_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-m", "fsaf", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fsaf {fsaf.__version__}\n", "")


@pytest.mark.parametrize("argv", [[], ["fly"], ["predict"], ["predict", "a.pt"], ["--colour"]])
def test_a_command_that_cannot_be_parsed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "usage: fsaf" in err


@pytest.mark.parametrize(
    ("argv", "near"),
    [
        (["trian", "lite0"], "train"),
        (["completion", "bsh"], "bash"),
        (["predict", "a.pt", "a.png", "--format", "jsn"], "json"),
        (["train", "bccd_lit0"], "bccd_lite0"),
        (["train", "bccd_lit0.yaml"], "bccd_lite0"),
        (["train", "lite0", "--data.batchsize", "4"], "--data.batch_size"),
        (["train", "lite0", "--lr=4"], "--optim.lr"),
        (["train", "lite0", "--train.precision", "bf61"], "bf16"),
        (["train", "lite0", "--resume", "ture"], "true"),
        (["train", "lite0", "--dryrun"], "--dry-run"),
        (["evaluate", "a.pt", "--score_threshold", "1"], "--predict.score_threshold"),
        (["predict", "a.pt", "a.png", "--show-level"], "--show-levels"),
        (["benchmark", "--data.bach_size", "4"], "--data.batch_size"),
        (["info", "--jsn"], "--json"),
        (["check", "DATA", "--shape", "4"], "--shapes"),
    ],
)
def test_a_mistake_names_what_is_near(
    argv: list[str], near: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert main(argv) == 2
    except SystemExit as end:
        assert end.code == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and f"did you mean '{near}'?" in err


@pytest.mark.parametrize("verb", VERBS)
def test_no_option_is_passed_over(verb: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = {
        "predict": ["a", "b"],
        "convert": ["a", "b"],
        "completion": ["bash"],
        "quickstart": [],
        "info": [],
    }
    refused(capsys, [verb, *words.get(verb, ["a"]), "--nonsense=3"], "--nonsense")
    refused(capsys, [verb, *words.get(verb, ["a"]), "-x"], "-x")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["evaluate", "a.pt", "--show-levels"], "belongs to fsaf predict"),
        (["evaluate", "a.pt", "--data.flip", "1"], "belongs to fsaf train"),
        (["predict", "a.pt", "a.png", "--data.batch_size", "2"], "--data.batch_size"),
        (["benchmark", "lite0", "--resume", "true"], "belongs to fsaf train"),
        (["convert", "a.pt", "b.pt", "--data.root", "x"], "--data.root"),
        (["info", "more"], "unexpected argument 'more'"),
    ],
)
def test_an_option_of_another_verb(
    argv: list[str], told: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, argv, told)


def test_overrides_may_stand_before_what_they_override(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, ["train", "--train.epochs", "2", "nothing"], "nothing: no such recipe file")
    refused(capsys, ["benchmark", "--data.batch_size", "0"], "data.batch_size = 0: must be at least 1")


# Training.


def test_train_evaluate_and_predict(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", write_recipe(tmp_path, root), "--train.epochs", "1"]) == 0
    out, _ = capsys.readouterr()
    assert str(tmp_path / "out") in out
    best = tmp_path / "out" / "checkpoints" / "best.pt"
    trained = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert main(["evaluate", str(best), "--out", str(tmp_path / "scores")]) == 0
    out, _ = capsys.readouterr()
    assert "AP50" in out and "green" in out and "img/s" in out
    again = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    assert again["AP"] == pytest.approx(trained["AP"], abs=1e-6)
    for run in (tmp_path / "out", tmp_path / "scores"):
        page = (run / "report.html").read_text(encoding="utf-8")
        assert "Confusion" in page and "Commands" in page and "could not be read" not in page
    page = tmp_path / "both.html"
    assert main(["report", str(tmp_path / "out"), str(tmp_path / "scores"), "--out", str(page)]) == 0
    assert capsys.readouterr().out == f"{page}\n" and "2 runs side by side" in page.read_text()


def test_mistakes_in_reports(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run").mkdir()
    (here / "file").write_text("mine")
    for options, told in (
        (["nowhere"], ["nowhere: no such run folder"]),
        (["file"], ["file: no such run folder"]),
        (["run"], ["run: is not a run folder", "metrics.jsonl"]),
        (["run", "--data.root", "x"], ["--data.root"]),
    ):
        refused(capsys, ["report", *options], *told)
    (here / "run" / "evaluation.json").write_text("{}")
    refused(capsys, ["report", "run", "--out", "run"], "--out run: is a folder", "run/report.html")
    refused(capsys, ["report", "run", "--out", "file/x.html"], "file/x.html: cannot be written")
    refused(capsys, ["report", "run", "run"], "run: given twice")
    assert sorted(path.name for path in here.rglob("*")) == ["evaluation.json", "file", "run"]


def test_a_report_that_cannot_be_made_fails_nothing(
    checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "report.html").mkdir()
    assert main(["evaluate", str(checkpoint), "--out", "."]) == 0
    assert "note: report.html could not be made" in capsys.readouterr().err
    assert (here / "evaluation.json").is_file()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--optim.speed", "3"], ["--optim.speed"]),
        (["--nonsense"], ["--nonsense"]),
        (["--optim.lr", "fast"], ["optim.lr", "fast"]),
        (["--optim.lr=0"], ["optim.lr = 0.0", "above 0"]),
        (["--data.root", "nowhere"], ["nowhere/annotations/train.json", "no such file", "--data.root"]),
        (["--data.train.images", "nowhere"], ["nowhere", "no such image folder"]),
        (["--data.train.annotations=null"], ["data.train.annotations is not set"]),
        (["--device", "abacus"], ["'abacus'"]),
        (["--init", "none.pt"], ["none.pt: no such checkpoint"]),
        (["--resume", "true"], ["last.pt: no such checkpoint"]),
        (["--model.backbone", "resnet5000"], ["resnet5000"]),
        (["--model.weights", "none.pth"], ["none.pth"]),
        (["--out", "file"], ["file: is a file", "--out"]),
        (["--out", "file/deeper/run"], ["file: is a file", "--out"]),
    ],
)
def test_mistakes_in_training(
    root: Path, here: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: list[str]
) -> None:
    (here / "file").write_text("mine")
    path = write_recipe(here, root)
    refused(capsys, ["train", path, *options], *told)
    assert sorted(p.name for p in here.iterdir()) == ["file", "recipe.yaml"]
    assert (here / "file").read_text() == "mine"


def test_a_recipe_that_does_not_exist(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, ["train", "nothing.yaml"], "nothing.yaml", "bccd_lite0")
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda data: "{}", ["not COCO JSON", "'images'"]),
        (lambda data: "no JSON", ["not readable as JSON"]),
        (lambda data: json.dumps({**data, "annotations": []}), ["no boxes at all"]),
        (lambda data: json.dumps({**data, "categories": data["categories"][:1]}), ["has category"]),
        (lambda data: json.dumps({**data, "images": data["images"][1:]}), ["image 11", "not listed"]),
    ],
)
def test_annotations_that_cannot_be_used(
    copy: Path, here: Path, capsys: pytest.CaptureFixture[str], damage: Any, told: list[str]
) -> None:
    path = copy / "annotations" / "train.json"
    path.write_text(damage(json.loads(path.read_text())))
    refused(capsys, ["train", write_recipe(here, copy)], str(path), *told)
    assert not (here / "out").exists()


def test_validation_data_is_checked_before_training(
    copy: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "annotations" / "val.json"
    data = json.loads(path.read_text())
    data["categories"][0]["name"] = "scarlet"
    path.write_text(json.dumps(data))
    refused(capsys, ["train", write_recipe(here, copy)], str(path), "scarlet")
    path.write_text(json.dumps({**data, "images": [], "annotations": [], "categories": []}))
    refused(capsys, ["train", write_recipe(here, copy)], str(path), "'categories' is empty")
    assert not (here / "out").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_does_not_decode(
    copy: Path, here: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    path = copy / "images" / "train" / "0013.png"
    path.write_text("no image")
    refused(
        capsys, ["train", write_recipe(here, copy), f"--data.workers={workers}"], str(path), "does not decode"
    )
    assert not (here / "out" / "checkpoints").exists()


def test_init_from_a_file_that_contradicts_itself(
    root: Path, here: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    for name in ("head.classes.weight", "head.classes.bias"):
        content["model"][name] = content["model"][name][:2]
    torch.save(content, here / "two.pt")
    refused(
        capsys, ["train", write_recipe(here, root), "--init", "two.pt"], "two.pt", "has 2 rows", "damaged"
    )
    assert not (here / "out").exists()


# Evaluation.


def test_mistakes_in_evaluation(
    checkpoint: Path, root: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(root.rglob("*"))
    (here / "file").write_text("mine")
    ours = str(checkpoint)
    for options, told in (
        (["none.pt"], ["none.pt: no such checkpoint"]),
        (["file"], ["file: not a readable checkpoint"]),
        ([ours, "--out", "file"], ["file: is a file"]),
        ([ours, "--device", "abacus"], ["'abacus'"]),
        ([ours, "--optim.lr", "1"], ["--optim.lr", "belongs to fsaf train"]),
        ([ours, "--data.speed", "1"], ["--data.speed"]),
        ([ours, "--predict.nms_iou", "2"], ["predict.nms_iou = 2"]),
        ([ours, "--data.val.annotations", "none.json"], ["none.json", "no such file"]),
        ([ours, "--data.val.images", "nowhere"], ["nowhere", "no such image folder"]),
    ):
        refused(capsys, ["evaluate", *options], *told)
    assert sorted(root.rglob("*")) == before
    assert [path.name for path in here.iterdir()] == ["file"]


def test_evaluation_on_other_classes(
    checkpoint: Path, copy: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copy / "annotations" / "val.json"
    data = json.loads(path.read_text())
    data["categories"] = [{"id": id_, "name": f"other {id_}"} for id_ in COLORS]
    path.write_text(json.dumps(data))
    options = ["--data.root", str(copy), "--out", "scores"]
    refused(capsys, ["evaluate", str(checkpoint), *options], str(path), "checkpoint has 3 classes")
    assert list(here.iterdir()) == []


def test_evaluation_lands_in_the_run_folder(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(checkpoint), "--data.batch_size=2"]) == 0
    run = checkpoint.parent.parent
    out = capsys.readouterr().out
    for name in ("evaluation.json", "predictions.json"):
        assert json.loads((run / name).read_text())
    for name in ("evaluation.json", "predictions.json", "report.html"):
        assert str(run / name) in out
        (run / name).unlink()
    (run / "commands.jsonl").unlink()


# Prediction.


def test_json_lines(checkpoint: Path, root: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root / "images" / "val"
    options = ["--format", "json", "--score-threshold", "0", "--max-detections", "7"]
    assert main(["predict", str(checkpoint), str(folder), *options]) == 0
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    detector = fsaf.load(checkpoint, "cpu")
    expected = detector.predict(sorted(folder.iterdir()), score_threshold=0.0, max_detections=7)
    assert lines == [result.to_dict() for result in expected]
    assert [len(line["detections"]) for line in lines] == [7, 7, 7] and err == ""
    assert list(here.iterdir()) == []


def test_files_folders_and_patterns_in_order(
    checkpoint: Path, root: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root / "images" / "val", here / "pictures")
    (here / "pictures" / "notes.txt").write_text("no picture")
    given = ["pictures/0503.png", "pictures", "pictures/*1.png", str(here / "pict*" / "0502.p?g")]
    options = ["--format", "json", "--batch-size", "4"]
    assert main(["predict", str(checkpoint), *given, *options]) == 0
    names = [Path(json.loads(line)["image"]).stem for line in capsys.readouterr().out.splitlines()]
    assert names == ["0503", "0501", "0502", "0503", "0501", "0502"]


def test_pictures_are_written_in_their_own_size(
    checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 200, 4), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    for name, mode in (
        ("grey", "L"),
        ("colour", "RGB"),
        ("palette", "P"),
        ("clear", "RGBA"),
        ("deep", "I;16"),
    ):
        image = (
            Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 200)
            if mode == "I;16"
            else picture.convert(mode)
        )
        image.save(here / f"{name}.png")
    options = ["--out", "drawn/here", "--score-threshold", "0", "--max-detections", "3"]
    assert main(["predict", str(checkpoint), ".", *options]) == 0
    out, _ = capsys.readouterr()
    for name in ("grey", "colour", "palette", "clear", "deep"):
        with Image.open(here / "drawn" / "here" / f"{name}.png") as image:
            assert image.size == (200, 120) and image.mode == "RGB"
        assert f"{name}.png -> drawn/here/{name}.png: " in out


def test_boxes_in_the_colours_of_their_levels(checkpoint: Path, root: Path, here: Path) -> None:
    picture = root / "images" / "val" / "0501.png"
    options = ["--score-threshold", "0", "--max-detections", "5", "--out"]
    assert main(["predict", str(checkpoint), str(picture), *options, "plain"]) == 0
    assert main(["predict", str(checkpoint), str(picture), "--show-levels", *options, "levels"]) == 0
    result = fsaf.load(checkpoint).predict(picture, score_threshold=0, max_detections=5)
    levels, names = result.by_level()
    assert names == [f"{name} P{level + 3}" for name, level in zip(result.names, result.levels, strict=True)]
    expected = draw_result(Image.open(picture), result.boxes, levels, result.scores, names)
    with Image.open(here / "levels" / "0501.png") as drawn, Image.open(here / "plain" / "0501.png") as plain:
        assert (np.asarray(drawn) == np.asarray(expected)).all()
        assert (np.asarray(drawn) != np.asarray(plain)).any()


def test_pictures_of_one_name_do_not_replace_each_other(
    checkpoint: Path, root: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("a", "b"):
        shutil.copytree(root / "images" / "val", here / folder)
    assert main(["predict", str(checkpoint), "a", "b/0501.png", "--out", "drawn"]) == 0
    assert len(list((here / "drawn").iterdir())) == 4
    assert len({line.split(" -> ")[1].split(":")[0] for line in capsys.readouterr().out.splitlines()}) == 4


def test_drawing_never_replaces_the_pictures_given(
    checkpoint: Path, root: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root / "images" / "val", here / "a")
    before = {path.name: path.read_bytes() for path in (here / "a").iterdir()}
    assert main(["predict", str(checkpoint), "a", "--out", "a"]) == 0
    after = {path.name: path.read_bytes() for path in (here / "a").iterdir()}
    assert len(after) == 6 and all(after[name] == data for name, data in before.items())


def test_drawing_follows_exif_rotation(
    checkpoint: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (96, 64)).save(here / "a.jpg", exif=exif)
    for option, size in (("false", (96, 64)), ("true", (64, 96))):
        options = ["--data.exif_rotation", option, "--out", option]
        assert main(["predict", str(checkpoint), "a.jpg", *options]) == 0
        with Image.open(here / option / "a.png") as image:
            assert image.size == size


def test_mistakes_in_prediction(
    checkpoint: Path, root: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").write_text("mine")
    (here / "bad.png").write_text("no image")
    (here / "empty").mkdir()
    before = sorted(here.iterdir())
    ours, picture = str(checkpoint), str(root / "images" / "val" / "0501.png")
    for options, told in (
        (["none.pt", picture], ["none.pt: no such checkpoint"]),
        (["none.onnx", picture], ["none.onnx"]),
        (["file", picture], ["file: not a readable checkpoint"]),
        ([ours, "gone.png"], ["gone.png: no such image"]),
        ([ours, "*.tiff"], ["*.tiff"]),
        ([ours, "a**b"], ["a**b"]),
        ([ours, "empty"], ["empty: no such image, folder with images"]),
        ([ours, "bad.png"], ["bad.png: does not decode"]),
        ([ours, picture, "--out", "file"], ["file: is a file"]),
        ([ours, picture, "--out", "file/deeper"], ["file: is a file"]),
        ([ours, picture, "--device", "abacus"], ["'abacus'"]),
        ([ours, picture, "--score-threshold", "1.5"], ["score_threshold = 1.5"]),
        ([ours, picture, "--max-detections", "0"], ["max_detections = 0"]),
        ([ours, picture, "--batch-size", "0"], ["batch_size = 0"]),
        ([ours, picture, "--short-side", "5"], ["short_side = 5"]),
        ([ours, picture, "--colour", "red"], ["--colour"]),
        ([ours, picture, "--train.epochs", "1"], ["--train.epochs"]),
    ):
        refused(capsys, ["predict", *options], *told)
        assert sorted(here.iterdir()) == before


def test_a_fault_of_ours_is_not_hidden(checkpoint: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Detector, "detect", broken)
    with pytest.raises(ZeroDivisionError):  # Python's exit status is then 1
        main(["predict", str(checkpoint), str(root / "images" / "val"), "--format", "json"])


# Real pictures.


def test_blood_cells_from_recipe_to_pictures(
    test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, images = tmp_path / "run", test_data / "bccd" / "images"
    small = ["--data.shapes=[[96, 128]]", "--data.short_side=96", "--data.long_side=128", "--data.workers=0"]
    options = [f"--data.root={test_data / 'bccd'}", f"--out={run}", "--train.max_steps=3", "--device=cpu"]
    assert main(["train", "bccd_lite0", *small, *options, "--train.evaluate_every=0"]) == 0
    last = str(run / "checkpoints" / "last.pt")
    capsys.readouterr()

    assert main(["evaluate", last, "--predict.score_threshold=0.01"]) == 0
    out, _ = capsys.readouterr()
    metrics = json.loads((run / "evaluation.json").read_text())
    assert metrics["images"] == 72 and set(metrics["per_class"]) == {"RBC", "WBC", "Platelets"}
    assert "Platelets" in out and "72 images" in out
    found = json.loads((run / "predictions.json").read_text())
    assert {entry["category_id"] for entry in found} <= {1, 2, 3}
    for x, y, width, height in (entry["bbox"] for entry in found):
        assert x >= 0 and y >= 0 and x + width <= 640.01 and y + height <= 480.01

    pictures = [str(images / f"BloodImage_{i:05d}.jpg") for i in (7, 0)]
    assert main(["predict", last, *pictures, "--format", "json", "--score-threshold", "0.01"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["image"] for line in lines] == pictures
    assert all(line["size"] == [480, 640] for line in lines)
    by_image = [entry for entry in found if entry["image_id"] == 8]  # BloodImage_00007
    assert len(lines[0]["detections"]) == len(by_image)

    assert main(["predict", last, *pictures, "--out", str(tmp_path / "drawn")]) == 0
    for path in pictures:
        with Image.open(tmp_path / "drawn" / f"{Path(path).stem}.png") as image:
            assert image.size == (640, 480)
