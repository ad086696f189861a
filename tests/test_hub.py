"""Folders for the Hugging Face hub: written from a run, read back, without a network."""

import json
import shlex
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import fsaf
from fsaf.cli import main
from fsaf.config import Config, to_dict
from fsaf.errors import UserError
from fsaf.hub import CARD, CONFIG, WEIGHTS, without_places
from fsaf.recipe import build_config, load_recipe
from fsaf.results.card import as_command, read_figures, write_card
from fsaf.results.metrics import METRICS
from fsaf.train.checkpoint import load_checkpoint, save_checkpoint
from fsaf.verbs import _beside
from synthetic import eight_pictures, recipe, write_coco


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, trained for an epoch."""
    folder = tmp_path_factory.mktemp("hub")
    write_coco(folder / "coloured_boxes", eight_pictures())
    write_coco(folder / "coloured_boxes", eight_pictures(1)[:3], "val", first_id=501)
    values = recipe(folder / "coloured_boxes", folder / "mine", model__backbone="test_efficientnet")
    values["predict"] = {"score_threshold": 0.0}
    (folder / "mine.yaml").write_text(yaml.safe_dump(values))
    assert main(["train", str(folder / "mine.yaml"), "--train.epochs", "1"]) == 0
    return folder / "mine"


@pytest.fixture(scope="module")
def published(run: Path) -> Path:
    """Its folder for the hub."""
    assert main(["publish", str(run / "checkpoints" / "last.pt"), "--license", "mit"]) == 0
    return run / "hub"


def picture(run: Path) -> Path:
    return run.parent / "coloured_boxes" / "images" / "val" / "0501.png"


def refused(capsys: pytest.CaptureFixture[str], argv: list[str], *told: str) -> None:
    capsys.readouterr()
    assert main(argv) == 2
    _, err = capsys.readouterr()
    assert err.count("\n") == 1 and all(part in err for part in told), err


# The folder.


def test_detections_are_those_of_the_checkpoint(run: Path, published: Path, tmp_path: Path) -> None:
    expected = fsaf.load(run / "checkpoints" / "last.pt", "cpu").predict(picture(run))
    assert len(expected) > 10
    assert sorted(path.name for path in published.iterdir()) == [CARD, CONFIG, WEIGHTS]
    opened = fsaf.load(published, "cpu")
    assert opened.classes == fsaf.load(run / "checkpoints" / "last.pt", "cpu").classes
    assert opened.predict(picture(run)).to_dict() == expected.to_dict()
    opened.save_pretrained(tmp_path / "again")
    assert fsaf.load(tmp_path / "again", "cpu").predict(picture(run)).to_dict() == expected.to_dict()
    assert main(["convert", str(published), str(tmp_path / "back.pt")]) == 0
    weights = load_checkpoint(tmp_path / "back.pt")["model"]
    stored = load_checkpoint(run / "checkpoints" / "last.pt")["model"]
    assert weights.keys() == stored.keys() == load_file(published / WEIGHTS).keys()
    assert all(torch.equal(weights[name], value) for name, value in stored.items())


def test_empty_folders_that_are_there(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    for place in (".", "../link"):
        assert main(["publish", str(run / "checkpoints" / "last.pt"), "--out", place]) == 0
    for name, folder in (("mine", Path()), ("real", tmp_path / "real")):
        assert sorted(path.name for path in folder.iterdir()) == [CARD, CONFIG, WEIGHTS]
        assert f"fsaf.load('{name}')" in (folder / CARD).read_text()


def test_the_network_alone(run: Path, published: Path) -> None:
    network = fsaf.FSAF.from_pretrained(published)
    assert type(network) is fsaf.FSAF and not network.training
    network = network.to(memory_format=torch.channels_last)  # as a detector's is
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    model: Any = fsaf.load(run / "checkpoints" / "last.pt", "cpu").model
    with torch.no_grad():
        assert all(
            torch.equal(a, b) for a, b in zip(network(images).logits, model(images).logits, strict=True)
        )


def test_a_network_saved_by_itself_opens_as_one_and_is_no_detector(published: Path, tmp_path: Path) -> None:
    network = fsaf.FSAF.from_pretrained(published)
    network.save_pretrained(tmp_path / "alone")
    again = fsaf.FSAF.from_pretrained(tmp_path / "alone")
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    with pytest.raises(UserError, match="says nothing of classes"):
        fsaf.load(tmp_path / "alone")


def test_a_tensor_that_is_missing_is_not_passed_over(published: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / CONFIG).write_bytes((published / CONFIG).read_bytes())
    tensors = load_file(published / WEIGHTS)
    del tensors["head.classes.bias"]
    save_file(tensors, broken / WEIGHTS)
    with pytest.raises(RuntimeError, match=r"head\.classes\.bias"):
        fsaf.FSAF.from_pretrained(broken)
    with pytest.raises(UserError, match=r"head\.classes\.bias"):
        fsaf.load(broken)


def test_nothing_tells_of_this_machine(run: Path, published: Path) -> None:
    for name in (CARD, CONFIG):
        text = (published / name).read_text()
        assert str(run.parent) not in text and "/tmp" not in text
    config = Config(out="/home/me/run", init="/home/me/a.pt", device="npu", resume=True)
    config.data.root, config.data.train.annotations, config.model.weights = (
        "/d",
        "/d/a/train.json",
        "/w/r50.pth",
    )
    config.data.val.annotations = "annotations/val.json"
    found = without_places(config)
    assert (found.out, found.init, found.device, found.resume, found.data.root) == (
        None,
        None,
        "auto",
        False,
        None,
    )
    assert (found.data.train.annotations, found.model.weights) == ("train.json", "r50.pth")
    assert found.data.val.annotations == "annotations/val.json"
    assert config.data.root == "/d"


def test_folders_that_are_none(published: Path, tmp_path: Path) -> None:
    names = ("empty", "other", "damaged", "newer", "poor")
    empty, other, damaged, newer, poor = (tmp_path / name for name in names)
    for folder in (empty, other, damaged, newer, poor):
        folder.mkdir()
    (other / CONFIG).write_text('{"settings": {}, "num_classes": 3}')
    about = json.loads((published / CONFIG).read_text())
    (damaged / CONFIG).write_text(json.dumps(about))
    (damaged / WEIGHTS).write_bytes((published / WEIGHTS).read_bytes()[:-100])
    about["fsaf"]["version"] = 99
    (newer / CONFIG).write_text(json.dumps(about))
    about["fsaf"] = {"format": "fsaf", "version": 1, "config": {}}
    (poor / CONFIG).write_text(json.dumps(about))
    (poor / WEIGHTS).write_bytes((published / WEIGHTS).read_bytes())
    for folder, told in (
        (empty, r"holds no config\.json"),
        (poor, "not a checkpoint written by fsaf, or damaged"),
        (other, "says nothing of classes"),
        (damaged, "not a readable folder"),
        (newer, "newer fsaf"),
    ):
        with pytest.raises(UserError, match=rf"^{folder}[^(]*{told}"):
            fsaf.load(folder)
    (damaged / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        fsaf.load(damaged)


# The card.


def table(text: str, head: str) -> dict[str, list[str]]:
    """First cell to the others, of the table that starts with ``head``."""
    rows = text.split(head)[1].split("\n\n")[0].splitlines()[2:]
    return {
        cells[0].strip(): [cell.strip() for cell in cells[1:]]
        for row in rows
        if (cells := row.split("|")[1:-1])
    }


def test_figures_of_the_card_are_those_of_the_evaluation(run: Path, published: Path) -> None:
    text = (published / CARD).read_text()
    figures = json.loads((run / "evaluation.json").read_text())
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
    run: Path,
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(published.parent)
    snippet = (published / CARD).read_text().split("```python\n")[1].split("```")[0]
    assert '"photo.jpg"' in snippet
    exec(snippet.replace('"photo.jpg"', repr(str(picture(run)))).replace("0.3)", "0.0)"), {})
    assert len(capsys.readouterr().out.splitlines()) == len(fsaf.load(published).predict(picture(run)))


def test_the_command_of_the_card_gives_the_same_settings(run: Path, published: Path) -> None:
    config = build_config(load_checkpoint(run / "checkpoints" / "last.pt")["config"], where="")
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


def test_a_card_says_what_it_does_not_know(run: Path) -> None:
    checkpoint = load_checkpoint(run / "checkpoints" / "last.pt")
    del checkpoint["training"]
    checkpoint["classes"]["names"][0] = "<b>*green*|"
    text = write_card(checkpoint, {"AP": None, "images": 4}, name="x", folder="x", repository="me/x")
    assert "does not say how it was trained" in text and "No licence has been stated" in text
    assert "fsaf.load('hf:me/x')" in text and "from_pretrained('me/x')" in text
    assert "| AP | - |" in text and "\\<b\\>\\*green\\*\\|" in text and "license" not in text.split("---")[1]


def test_a_card_of_other_figures_and_names(run: Path) -> None:
    checkpoint = load_checkpoint(run / "checkpoints" / "last.pt")
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
    """AP is null where the split has no box."""
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 5, "epoch": 1, "AP": own}) + "\n")
    (tmp_path / "evaluation.json").write_text(json.dumps({"AP": figure}))
    checkpoint = {"training": {"step": 5}}
    if fits:
        assert read_figures(tmp_path, checkpoint, None) == {"AP": figure}
    else:
        with pytest.raises(UserError, match="is of other weights"):
            read_figures(tmp_path, checkpoint, None)


# The command.


def test_mistakes_in_publishing(
    run: Path,
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is uploaded unless asked for")

    monkeypatch.setattr(huggingface_hub, "HfApi", never)
    last = str(run / "checkpoints" / "last.pt")
    before = sorted(run.rglob("*"))
    refused(capsys, ["publish", last], f"{run / 'hub'}: is there already")
    refused(capsys, ["publish", last, "--out", str(run / "config.yaml")], "config.yaml: is a file")
    refused(capsys, ["publish", last, "--private"], "--private")
    refused(capsys, ["publish", "none.pt"], "none.pt: no such checkpoint")
    refused(
        capsys,
        ["publish", last, "--out", str(tmp_path / "a"), "--evaluation", "none.json"],
        "none.json: no figures",
    )
    refused(
        capsys, ["publish", last, "--out", str(tmp_path / "a"), "--evaluation", last], "not an evaluation"
    )
    assert sorted(run.rglob("*")) == before and not (tmp_path / "a").exists()

    other = tmp_path / "checkpoints" / "best.pt"
    checkpoint = load_checkpoint(run / "checkpoints" / "last.pt")
    save_checkpoint(other, checkpoint)
    refused(capsys, ["publish", str(other)], "evaluation.json: no figures", "fsaf evaluate")
    figures = json.loads((run / "evaluation.json").read_text())
    step = checkpoint["training"]["step"]
    record = {"step": step, "epoch": 1, "AP": figures["AP"]}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "evaluation.json").write_text(json.dumps({**figures, "AP": figures["AP"] + 0.1}))
    refused(capsys, ["publish", str(other)], "is of other weights")
    assert not (tmp_path / "hub").exists()
    assert main(["publish", str(other), "--evaluation", str(run / "evaluation.json")]) == 0
    assert "hf upload USER/NAME" in capsys.readouterr().out and (tmp_path / "hub" / CARD).is_file()


def test_uploading(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the hub's client is asked to do; the hub itself is not there."""
    asked: list[tuple[str, Any]] = []

    class Api:
        def create_repo(self, repository: str, **options: Any) -> str:
            asked.append((repository, options))
            return f"https://hub/{repository}"

        def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> None:
            if repo_id == "me/closed":
                raise OSError("no network\nmore")
            asked.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    command = ["publish", str(run / "checkpoints" / "last.pt"), "--out"]
    assert main([*command, str(tmp_path / "a"), "--upload", "me/x", "--private"]) == 0
    assert "uploaded: https://hub/me/x" in capsys.readouterr().out
    files = [CARD, CONFIG, WEIGHTS]
    assert asked == [("me/x", {"private": True, "exist_ok": True}), ("me/x", files)]
    assert "hf:me/x" in (tmp_path / "a" / CARD).read_text()
    refused(
        capsys,
        [*command, str(tmp_path / "b"), "--upload", "me/closed"],
        "me/closed: not uploaded",
        "no network)",
    )
    assert (tmp_path / "b" / CARD).is_file()
    assert fsaf.load(tmp_path / "a", "cpu").push_to_hub("me/y") == "https://hub/me/y"
    assert asked[-1] == ("me/y", files)


def test_detectors_from_the_hub(
    run: Path,
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """``hf:USER/NAME`` wherever a checkpoint is taken; the download is a stand-in."""
    asked = []

    def download(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision))
        if repository != "me/mine":
            raise OSError("no network")
        return str(published)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    expected = fsaf.load(published, "cpu").predict(picture(run)).to_dict()
    assert fsaf.load("hf:me/mine@v2", "cpu").predict(picture(run)).to_dict() == expected
    assert (
        main(["predict", "hf:me/mine", str(picture(run)), "--format", "json", "--score-threshold", "0"]) == 0
    )
    assert json.loads(capsys.readouterr().out) == expected
    assert asked == [("me/mine", "v2"), ("me/mine", None)]
    refused(
        capsys,
        ["predict", "hf:me/gone", str(picture(run))],
        "hf:me/gone: cannot be had from the hub",
        "no network",
    )
    for checkpoint in ("hf:me/mine", str(published)):
        refused(capsys, ["evaluate", checkpoint], "--out FOLDER")
    for name in ("hf:me/mine", "hf:me/mine@v2", "hf:me/mine@refs/pr/1"):
        assert _beside(Path(name), ".onnx") == Path("mine.onnx")
    data = run.parent / "coloured_boxes"
    assert main(["evaluate", "hf:me/mine", "--data.root", str(data), "--out", "scores"]) == 0
    figures = json.loads(Path("scores/evaluation.json").read_text())
    assert figures["AP"] == pytest.approx(json.loads((run / "evaluation.json").read_text())["AP"], abs=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores"]
