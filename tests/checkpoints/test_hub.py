"""Folders for the Hugging Face hub: written from a run, read back, without a network."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file

import fsaf
from cli.commands import refused
from fsaf.checkpoints.format import load_checkpoint, save_checkpoint
from fsaf.checkpoints.hub import CARD, CONFIG, WEIGHTS, without_places
from fsaf.cli import main
from fsaf.config import Config
from fsaf.errors import UserError
from fsaf.run_folder.paths import beside
from published import picture

# The folder.


def test_detections_are_those_of_the_checkpoint(trained_run: Path, published: Path, tmp_path: Path) -> None:
    expected = fsaf.load(trained_run / "checkpoints" / "last.pt", "cpu").predict(
        picture(trained_run), score_threshold=0
    )
    assert len(expected) > 10
    assert sorted(path.name for path in published.iterdir()) == [CARD, CONFIG, WEIGHTS]
    opened = fsaf.load(published, "cpu")
    assert opened.classes == fsaf.load(trained_run / "checkpoints" / "last.pt", "cpu").classes
    assert opened.predict(picture(trained_run), score_threshold=0).to_dict() == expected.to_dict()
    opened.save_pretrained(tmp_path / "again")
    assert (
        fsaf.load(tmp_path / "again", "cpu").predict(picture(trained_run), score_threshold=0).to_dict()
        == expected.to_dict()
    )
    assert main(["convert", str(published), str(tmp_path / "back.pt")]) == 0
    weights = load_checkpoint(tmp_path / "back.pt").weights
    stored = load_checkpoint(trained_run / "checkpoints" / "last.pt").weights
    assert weights.keys() == stored.keys() == load_file(published / WEIGHTS).keys()
    assert all(torch.equal(weights[name], value) for name, value in stored.items())


def test_empty_folders_that_are_there(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    for place in (".", "../link"):
        assert main(["publish", str(trained_run / "checkpoints" / "last.pt"), "--out", place]) == 0
    for name, folder in (("mine", Path()), ("real", tmp_path / "real")):
        assert sorted(path.name for path in folder.iterdir()) == [CARD, CONFIG, WEIGHTS]
        assert f"fsaf.load('{name}')" in (folder / CARD).read_text()


def test_a_folder_without_classes_is_no_detector(published: Path, tmp_path: Path) -> None:
    """Folders of other libraries have weights too, and a ``config.json`` of their own."""
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / WEIGHTS).write_bytes((published / WEIGHTS).read_bytes())
    (alone / CONFIG).write_text('{"num_classes": 3}')
    with pytest.raises(UserError, match="has no classes and recipe"):
        fsaf.load(alone)


def test_a_folder_without_a_card_gets_a_short_one(published: Path, tmp_path: Path) -> None:
    detector = fsaf.load(published, "cpu")
    detector.save_pretrained(tmp_path / "short")
    text = (tmp_path / "short" / CARD).read_text()
    assert huggingface_hub.ModelCard(text).data.library_name == "fsaf" and "fsaf.load" in text
    detector.save_pretrained(tmp_path / "own", card="# Mine")
    assert (tmp_path / "own" / CARD).read_text() == "# Mine"


def test_a_tensor_that_is_missing_is_not_passed_over(published: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / CONFIG).write_bytes((published / CONFIG).read_bytes())
    tensors = load_file(published / WEIGHTS)
    del tensors["head.classes.bias"]
    save_file(tensors, broken / WEIGHTS)
    with pytest.raises(UserError, match=r"head\.classes\.bias"):
        fsaf.load(broken)


def test_nothing_tells_of_this_machine(trained_run: Path, published: Path) -> None:
    for name in (CARD, CONFIG):
        text = (published / name).read_text()
        assert str(trained_run.parent) not in text and "/tmp" not in text
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
        (other, "has no classes and recipe"),
        (damaged, "not a readable folder"),
        (newer, "newer fsaf"),
    ):
        with pytest.raises(UserError, match=rf"^{folder}[^(]*{told}"):
            fsaf.load(folder)
    (damaged / WEIGHTS).unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        fsaf.load(damaged)


# The command.


@pytest.mark.slow
def test_mistakes_in_publishing(
    trained_run: Path,
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is uploaded unless asked for")

    monkeypatch.setattr(huggingface_hub, "HfApi", never)
    last = str(trained_run / "checkpoints" / "last.pt")
    before = sorted(trained_run.rglob("*"))
    refused(capsys, ["publish", last], f"{trained_run / 'hub'}: already exists")
    refused(capsys, ["publish", last, "--out", str(trained_run / "config.yaml")], "config.yaml: is a file")
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
    assert sorted(trained_run.rglob("*")) == before and not (tmp_path / "a").exists()

    other = tmp_path / "checkpoints" / "best.pt"
    checkpoint = load_checkpoint(trained_run / "checkpoints" / "last.pt")
    save_checkpoint(other, checkpoint)
    refused(capsys, ["publish", str(other)], "evaluation.json: no figures", "fsaf evaluate")
    figures = json.loads((trained_run / "evaluation.json").read_text())
    step = checkpoint.step
    record = {"step": step, "epoch": 1, "AP": figures["AP"]}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "evaluation.json").write_text(json.dumps({**figures, "AP": figures["AP"] + 0.1}))
    refused(capsys, ["publish", str(other)], "is of other weights")
    assert not (tmp_path / "hub").exists()
    assert main(["publish", str(other), "--evaluation", str(trained_run / "evaluation.json")]) == 0
    assert "hf upload USER/NAME" in capsys.readouterr().out and (tmp_path / "hub" / CARD).is_file()


@pytest.mark.slow
def test_uploading(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The calls that the hub's client gets. No hub is involved."""
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
    command = ["publish", str(trained_run / "checkpoints" / "last.pt"), "--out"]
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


@pytest.mark.slow
def test_detectors_from_the_hub(
    trained_run: Path,
    published: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each command that takes a checkpoint takes ``hf:USER/NAME``. The download is a stand-in."""
    asked = []

    def download(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision))
        if repository != "me/mine":
            raise OSError("no network")
        return str(published)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    expected = fsaf.load(published, "cpu").predict(picture(trained_run), score_threshold=0).to_dict()
    assert (
        fsaf.load("hf:me/mine@v2", "cpu").predict(picture(trained_run), score_threshold=0).to_dict()
        == expected
    )
    assert (
        main(
            ["predict", "hf:me/mine", str(picture(trained_run)), "--format", "json", "--score-threshold", "0"]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out) == expected
    assert asked == [("me/mine", "v2"), ("me/mine", None)]
    refused(
        capsys,
        ["predict", "hf:me/gone", str(picture(trained_run))],
        "hf:me/gone: cannot be downloaded from the hub",
        "no network",
    )
    for checkpoint in ("hf:me/mine", str(published)):
        refused(capsys, ["evaluate", checkpoint], "--out FOLDER")
    for name in ("hf:me/mine", "hf:me/mine@v2", "hf:me/mine@refs/pr/1"):
        assert beside(Path(name), ".onnx") == Path("mine.onnx")
    data = trained_run.parent / "coloured_boxes"
    assert main(["evaluate", "hf:me/mine", "--data.root", str(data), "--out", "scores"]) == 0
    figures = json.loads(Path("scores/evaluation.json").read_text())
    assert figures["AP"] == pytest.approx(
        json.loads((trained_run / "evaluation.json").read_text())["AP"], abs=1e-6
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores"]
