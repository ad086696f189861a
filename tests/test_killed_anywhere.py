"""Verbs killed at a random moment: what they wrote is whole, and the next run works and clears the rest.

A few times in the suite; often with ``FSAF_KILLS=50 FSAF_SIGNALS=20 pytest tests/test_killed_anywhere.py``.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import onnx
import pytest
from PIL import Image

import kills
import shell
from fsaf.checkpoints.any_format import read_checkpoint
from many_processes import FORK
from synthetic import write_eight

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

if FORK is None:
    pytest.skip("FSAF_PROCESSES: no fork server on this system", allow_module_level=True)

KILLS = int(os.environ.get("FSAF_KILLS", "5"))
SIGNALS = int(os.environ.get("FSAF_SIGNALS", "1"))
SEED = int(os.environ.get("FSAF_SEED", "0"))

VERBS = {
    "train": "recipe.json --out OUT --resume auto --train.max_steps 12 --train.save_every 2",
    "evaluate": "run --out OUT --predict.score_threshold 0 --data.workers 1",
    "predict": "run data/images --out OUT --predict.score_threshold 0 --max-detections 2 "
    "--save-crops --save-txt --save-csv OUT/found.csv --save-coco OUT/found.json",
    "export": "run --out OUT/model.onnx",
    "publish": "run --out OUT",
    "convert": "run OUT/model.safetensors",
    "check": "data --fix OUT --report OUT.json",
    "report": "run --out OUT/report.html",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    write_eight(folder / "data")
    settings = {"train__max_steps": 1, "train__evaluate_every": 1}
    file = shell.write_recipe(folder, folder / "data", folder / "run", **settings)
    assert shell.run(f"$FSAF train {file}")[0] == 0
    return folder


def fsaf(folder: Path, verb: str, out: str, kill_after: float | None = None) -> tuple[int, str]:
    """Run a verb in ``folder``, or kill it after some seconds; return its status and output."""
    words = f"{verb} {VERBS[verb].replace('OUT', str(folder / out))}"
    for name in ("recipe.json", "run", "data"):
        words = words.replace(f" {name}", f" {folder / name}", 1)
    said = folder / "said.txt"
    said.write_text("")
    process = FORK.Process(target=kills.command, args=(said, words.split(), "none", 0))
    process.start()
    process.join(60 if kill_after is None else kill_after)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode, said.read_text()


def check_whole(path: Path) -> None:
    """Raise an error if a file is not whole."""
    if path.suffix == ".png":
        Image.open(path).load()
    elif path.suffix == ".onnx":
        onnx.checker.check_model(str(path))
    elif path.suffix in (".pt", ".safetensors"):
        read_checkpoint(
            path.parent
            if path.name == "model.safetensors" and (path.parent / "config.json").is_file()
            else path
        )
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>")


def test_killed_at_any_moment_everything_is_whole_and_the_next_run_works(folder: Path) -> None:
    rng = random.Random(SEED)
    files: dict[str, set[str]] = {}
    seconds: dict[str, float] = {}
    for number in range(KILLS):
        verb = list(VERBS)[number % len(VERBS)]
        if verb not in files:
            start = time.monotonic()
            status, said = fsaf(folder, verb, f"{verb}-whole")
            seconds[verb] = time.monotonic() - start
            assert status in (0, 2) and "Traceback" not in said, said
            files[verb] = names(folder / f"{verb}-whole")
        out = folder / f"{verb}-{number}"
        while fsaf(folder, verb, out.name, rng.uniform(0.05, 0.95) * seconds[verb])[0] != -signal.SIGKILL:
            seconds[verb] *= 0.8  # it ended sooner than the first one did
            shutil.rmtree(out, ignore_errors=True)
        visible = [path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")]
        for path in visible:
            if path.relative_to(out).parts[0].startswith("."):
                continue  # a folder that is not yet in its place
            check_whole(path)
        if verb in ("publish", "check") and visible and names(out) == files[verb]:
            shutil.rmtree(out)  # it was done; they do not overwrite
        status, said = fsaf(folder, verb, out.name)
        assert status in (0, 2) and "Traceback" not in said, (number, verb, said)
        assert names(out) == files[verb], (number, verb, said)
        assert not list(folder.rglob(".*.tmp")) and not list(folder.rglob(".fsaf-lock")), (number, verb)
        if verb == "train":
            rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            assert [row["step"] for row in rows if "loss" in row] == list(range(1, 13))
            assert shell.saved(out) == 12


def names(out: Path) -> set[str]:
    """Return the files of a folder, apart from TensorBoard's, of which each start makes one."""
    return {
        str(path.relative_to(out))
        for path in out.rglob("*")
        if path.is_file() and "tfevents" not in path.name and path.name != "last-1.pt"
    }


def test_signals_with_pipes_lose_nothing(folder: Path) -> None:
    """Random signals to a run and its pipe, at random steps; then the run goes on where it was."""
    rng = random.Random(SEED)
    for number in range(SIGNALS):
        out = folder / f"piped-{number}"
        file = shell.write_recipe(folder, folder / "data", out, data__workers=rng.randint(0, 1))
        pipe = rng.choice(["| tee {}/log", "| head -3", "2>&1 | cat", "> /dev/full"]).format(folder)
        received = rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
        script = f"trap : INT TERM HUP USR1; ($FSAF train {file} --resume auto {pipe}) 2>{folder}/err"
        process = shell.start(script, stdout=subprocess.DEVNULL)
        before = rng.randint(1, 12)
        shell.wait_for(lambda at=before, out=out: shell.steps(out) >= at)
        os.killpg(process.pid, received)
        process.wait(60)
        shell.wait_for(lambda out=out: (out / "checkpoints" / "last.pt").is_file(), 10)
        at = shell.saved(out)
        assert at == shell.steps(out) >= before, (number, pipe, received)
        assert "Traceback" not in (folder / "err").read_text()
        status, _, said = shell.run(f"$FSAF train --resume {out} --train.max_steps {at + 2} 2>&1")
        assert status == 0 and shell.saved(out) == at + 2, said
