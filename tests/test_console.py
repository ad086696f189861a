"""Output that breaks while training: the run goes on, saves, and ends with the status that docs state."""

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

import shell

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("redirect", ["| head -1", "> /dev/full", ">&-", ">&- 2>&-", "2>/dev/full | true"])
def test_output_that_nobody_reads_does_not_end_training(root: Path, tmp_path: Path, redirect: str) -> None:
    out = tmp_path / "run"
    file = shell.write_recipe(tmp_path, root, out, train__epochs=3)
    status, _, err = shell.run(f"set -o pipefail; $FSAF train {file} {redirect}")
    assert (status, shell.saved(out), shell.steps(out)) == (0, 12, 12), err
    assert "Traceback" not in err and "Exception" not in err
    rows = (out / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 12 and all(row.startswith("{") for row in rows)  # no output went into it


def test_ctrl_c_with_tee_saves(root: Path, tmp_path: Path) -> None:
    """The terminal sends SIGINT to both; ``tee`` ends at once, and the pipe has no reader any more."""
    out = tmp_path / "run"
    file = shell.write_recipe(tmp_path, root, out)
    script = f"set -o pipefail; $FSAF train {file} 2>{tmp_path}/err | tee {tmp_path}/log"
    process = shell.start(script, stdout=subprocess.DEVNULL)
    shell.wait_for(lambda: shell.steps(out) >= 3)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(30)
    said = (tmp_path / "err").read_text()
    assert "Traceback" not in said and "stopped by SIGINT after step" in said.splitlines()[-1]
    assert shell.saved(out) == shell.steps(out) >= 3
    assert process.returncode in (130, -signal.SIGINT)  # bash ends by the signal that it received itself


@pytest.mark.parametrize("number", [0, signal.SIGTERM])
def test_a_terminal_that_is_gone_does_not_end_training(root: Path, tmp_path: Path, number: int) -> None:
    """Every write to it fails with EIO; no SIGHUP comes since it is not the controlling terminal."""
    out = tmp_path / "run"
    file = shell.write_recipe(tmp_path, root, out, train__epochs=5000 if number else 12)
    ours, theirs = pty.openpty()
    process = shell.start(f"exec $FSAF train {file}", stdout=theirs, stderr=theirs)
    os.close(theirs)
    shell.wait_for(lambda: shell.steps(out) >= 3)
    os.close(ours)
    if number:
        at = shell.steps(out)
        shell.wait_for(lambda: shell.steps(out) >= at + 3)
        process.send_signal(number)
    assert process.wait(60) == (128 + number if number else 0)
    assert shell.saved(out) == shell.steps(out) >= 6


def test_results_that_cannot_be_printed_are_one_message(tmp_path: Path) -> None:
    for redirect, reason in (("> /dev/full", "No space left on device"), (">&-", "Bad file descriptor")):
        for words in ("completion bash", "train --help", "--version"):
            status, _, err = shell.run(f"$FSAF {words} {redirect}")
            name = "fsaf" if words.startswith("-") else f"fsaf {words.split()[0]}"
            assert err.startswith(f"{name}: standard output: cannot be written ({reason})"), err
            assert (status, err.count("\n")) == (2, 1)
