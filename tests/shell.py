"""``fsaf`` as a command of a shell, with real pipes, terminals and signals."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsaf.checkpoints.format import load_checkpoint
from synthetic import recipe

FSAF = f"{sys.executable} -m fsaf"
STARTED: list["subprocess.Popen[bytes]"] = []


def write_recipe(folder: Path, data: Path, out: Path, **overrides: Any) -> Path:
    """Write a recipe of many short epochs of four steps, with a record of each step."""
    settings = {
        "model__backbone": "test_efficientnet",
        "model__convs": 0,
        "data__batch_size": 2,
        "train__epochs": 5000,
        "train__evaluate_every": 0,
    }
    file = folder / "recipe.json"
    file.write_text(json.dumps(recipe(data, out, **{**settings, **overrides})))
    return file


def start(script: str, **options: Any) -> "subprocess.Popen[bytes]":
    """Start a script of bash, in which ``$FSAF`` is the command, in a process group of its own."""
    environment = {**os.environ, "FSAF": FSAF, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    options = {"stdin": subprocess.DEVNULL, "start_new_session": True, **options}
    process = subprocess.Popen(["bash", "-c", script], env=environment, **options)
    STARTED.append(process)
    return process


def run(script: str, timeout: float = 60) -> tuple[int, str, str]:
    """Return status, stdout and stderr of a script."""
    process = start(script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        kill_group(process)
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


def end_all() -> None:
    """Kill what is left of all scripts that were started."""
    while STARTED:
        kill_group(STARTED.pop())


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill what is left of a script."""
    if process.poll() is None:
        os.killpg(process.pid, 9)
        process.wait()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until ``condition()`` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.02)


def steps(out: Path) -> int:
    """Return the last step that a run has recorded."""
    file = out / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def saved(out: Path) -> int:
    """Return the step of ``last.pt``."""
    step = load_checkpoint(out / "checkpoints" / "last.pt").step
    assert step is not None
    return step
