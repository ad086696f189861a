"""Names from strangers: escapes, markup, HTML and bytes that are not UTF-8 in folders, files and classes."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.commands import write_recipe
from fsaf.cli import main, verbs
from fsaf.config import Config, ModelConfig
from fsaf.data.records import Classes
from fsaf.demo.page import make_page
from fsaf.detection.detector import Detector
from fsaf.errors import Stopped
from fsaf.model.detector import FSAF
from synthetic import write_eight

pytestmark = pytest.mark.slow

EVIL = "\x1b[2J\x07\u202e<script>alert(1)<b>```|"
"""Clears a terminal, rings, reverses text, and runs in a browser."""
FOLDERS = {
    "escapes": f"x[/bold]{EVIL}",  # with "/" this is a closing tag of rich's markup
    "bytes": os.fsdecode(b"x\xff\xfe \xe9"),
    "lines": "a\nb\rc'\"$(touch owned)",
}


@pytest.fixture(params=FOLDERS)
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained run in such a folder, on data with such names."""
    folder = tmp_path / FOLDERS[request.param]
    write_eight(folder / "data")
    for split, number in (("train", "0011"), ("val", "0501")):
        file = folder / "data" / "annotations" / f"{split}.json"
        content = json.loads(file.read_text())
        for category in content["categories"]:
            category["name"] += EVIL
        name = f"{number}{EVIL}{os.fsdecode(bytes([0xFF])) if request.param == 'bytes' else ''}.png"
        content["images"][0]["file_name"] = name
        (folder / "data" / "images" / split / f"{number}.png").rename(
            folder / "data" / "images" / split / name
        )
        file.write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    recipe = write_recipe(tmp_path, folder / "data", predict={"score_threshold": 0.0})
    if request.param == "bytes":  # TensorBoard cannot write there
        assert main(["train", recipe, f"--out={folder / 'run'}"]) == 2
        assert not (folder / "run").exists()
        shutil.move(folder / "data", tmp_path)
        recipe = write_recipe(tmp_path, tmp_path / "data", predict={"score_threshold": 0.0})
        folder = tmp_path
    assert main(["train", recipe, f"--out={folder / 'run'}", "--train.epochs=1"]) == 0
    if request.param == "bytes":
        shutil.copytree(folder / "run", tmp_path / FOLDERS["bytes"] / "run")
        shutil.move(tmp_path / "data", tmp_path / FOLDERS["bytes"])
        folder = tmp_path / FOLDERS["bytes"]
    return folder / "run"


def poisoned(run: Path) -> None:
    """Add to the files of a run what fsaf does not write."""
    file = run / "evaluation.json"
    content = json.loads(file.read_text())
    content["per_class"][EVIL] = {"AP": EVIL, "AP50": 0.5, "boxes": EVIL}
    content["boxes_by_size"] = {EVIL: EVIL}
    content["images"] = EVIL
    file.write_text(json.dumps(content))
    with (run / "commands.jsonl").open("a") as commands:
        note = {"time": EVIL, "command": EVIL, "device": EVIL, "versions": {EVIL: EVIL}}
        commands.write(json.dumps(note) + "\n")


def test_they_reach_neither_terminal_nor_pages(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, best = run.parent / "data", run / "checkpoints" / "best.pt"
    picture = next((data / "images" / "val").glob("0501*"))
    out = run.parent / "out"
    commands: list[list[Any]] = [
        ["check", data],
        ["check", data, "--details"],
        ["check", data, "--shapes", "2"],
        ["check", data, "--fix", out / "fixed"],
        ["check", data, "--html", out / "check.html", "--report", out / "check.json"],
        ["check", data, "--split", out / "split"],
        ["check", run, "--no-images"],
        ["evaluate", best, "--data.root", data],
        ["predict", best, picture, "--out", out / "drawn", "--save-crops"],
        ["predict", best, picture, "--format", "json"],
        ["predict", best, run / "config.yaml"],
        ["convert", best, out / "a.safetensors"],
        ["convert", out / "a.safetensors", out / "b.pt"],
        ["convert", run / "config.yaml", out / "c.pt"],
        ["export", best, "--out", out / "a.onnx"],
        ["predict", out / "a.onnx", picture, "--out", out / "by_onnx"],
        ["report", run],
        ["report", run, run.parent / "run2"],
        ["publish", best, "--out", out / "hub"],
        ["predict", out / "hub", picture, "--out", out / "by_hub"],
        ["train", run / "config.yaml", "--resume", "false"],
        ["train", "--resume", run],
        ["train", "lite0", "--init", run / "config.yaml", f"--data.root={data}"],
        ["info"],
    ]
    shutil.copytree(run, run.parent / "run2")
    for folder in (run, run.parent / "run2"):
        poisoned(folder)
    for command in commands:
        if command[0] == "report":
            poisoned(run)
        capfd.readouterr()
        status = main([str(word) for word in command])
        said, err = capfd.readouterr()
        assert status in (0, 2), command
        assert "Traceback" not in err and (status == 0 or err.count("\n") >= 1), command
        for line in (said + err).split("\n"):
            assert line.isprintable(), (command, line)
    assert not Path("owned").exists()
    pages = [*run.parent.rglob("*.html"), *Path.cwd().glob("*.html"), *out.rglob("README.md")]
    assert len(pages) >= 3
    for page in pages:
        text = page.read_text(encoding="utf-8")
        if page.suffix == ".html":
            assert "<script" not in text
        for mark in ("\x1b", "\x07", "\u202e"):
            assert mark not in text, page
    card = (out / "hub" / "README.md").read_text(encoding="utf-8")
    outside, inside = [], False
    for line in card.split("\n---\n", 1)[1].splitlines():
        inside = inside != line.startswith("```")
        outside += [] if inside else [line]
    assert "<script" not in "\n".join(outside).replace("\\<", "")


def test_an_ascii_terminal(checkpoint: Path, root: Path, tmp_path: Path) -> None:
    """Here the streams are real, and Python chooses how to write to them."""
    picture = tmp_path / "猫 naïve.png"
    shutil.copy(next((root / "images" / "val").iterdir()), picture)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG"))}
    env |= {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    for words, status in (
        (["predict", str(checkpoint), str(picture), "--out", str(tmp_path / "猫")], 0),
        (["predict", str(checkpoint), str(picture.with_name("猫.png"))], 2),
        (["check", str(root)], 0),
        (["train", "--help"], 0),
    ):
        done = subprocess.run([sys.executable, "-m", "fsaf", *words], capture_output=True, env=env)
        assert done.returncode == status, done.stderr
        assert b"Traceback" not in done.stderr
        done.stdout.decode("ascii")


def test_a_stop_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(_: Any) -> None:
        raise Stopped(f"everything is in {EVIL}", 15)

    monkeypatch.setitem(verbs.VERBS, "info", replace(verbs.VERBS["info"], run=stop))
    assert main(["info"]) == 143
    assert capsys.readouterr().err.removesuffix("\n").isprintable()


def test_names_of_classes_on_the_demo_page(tmp_path: Path, tiny_model_config: ModelConfig) -> None:
    """gradio shows Markdown and HTML in the text below a choice."""
    pytest.importorskip("gradio")
    classes = Classes(names=(EVIL, "[x](javascript:alert(1))"), ids=(1, 2))
    Detector(FSAF(tiny_model_config, 2), classes, Config(model=tiny_model_config)).save(tmp_path / "a.pt")
    page = make_page([tmp_path / "a.pt"], "cpu", folder=tmp_path)
    (told,) = [each["props"]["info"] for each in page.config["components"] if each["type"] == "dropdown"]
    assert "\\<script\\>" in told and "\\[x\\]" in told and told.isprintable()
