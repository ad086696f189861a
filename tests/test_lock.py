"""A run folder belongs to one process at a time, and training follows a folder that is moved."""

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import fsaf
import shell
from synthetic import write_eight

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eight")
    write_eight(folder)
    return folder


def training(file: Path, out: Path) -> "subprocess.Popen[bytes]":
    """Start a training and wait for its first steps."""
    process = shell.start(f"exec $FSAF train {file} >/dev/null", stderr=subprocess.PIPE)
    shell.wait_for(lambda: shell.steps(out) >= 3)
    return process


def finish(process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    """Return the status and the errors of a process once it has ended."""
    said = process.communicate(timeout=60)[1].decode()
    assert "Traceback" not in said, said
    return process.returncode, said


def test_others_are_refused_until_the_process_has_ended(root: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "run", tmp_path / "other"
    shell.run(f"$FSAF train {shell.write_recipe(tmp_path, root, other, train__max_steps=1)}")
    file = shell.write_recipe(tmp_path, root, out)
    process = training(file, out)
    for command in (
        f"train {file}",
        f"evaluate {other} --out {out}",
        f"check {root} --fix {out}",
    ):
        status, _, said = shell.run(f"$FSAF {command} >/dev/null")
        assert status == 2 and said.splitlines()[-1].startswith(f"fsaf {command.split()[0]}: {out}: "), said
        assert f"fsaf train (process {process.pid} on " in said and "Traceback" not in said
    at = shell.steps(out)
    shell.wait_for(lambda: shell.steps(out) > at)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = shell.steps(out)
    process = shell.start(f"exec $FSAF train {file} --resume auto >/dev/null", stderr=subprocess.PIPE)
    shell.wait_for(lambda: shell.steps(out) > killed_at)
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, shell.saved(out) + 1))
    assert not (out / ".fsaf-lock").exists()


def test_of_two_that_publish_into_one_folder_one_does(root: Path, tmp_path: Path) -> None:
    file = shell.write_recipe(tmp_path, root, tmp_path / "run", train__max_steps=1, train__evaluate_every=1)
    assert shell.run(f"$FSAF train {file}")[0] == 0
    out = tmp_path / "hub"
    publish = f"$FSAF publish {tmp_path}/run --out {out} >/dev/null 2>{tmp_path}/said"
    script = f"{publish}1 & a=$!; {publish}2 & b=$!; wait $a; echo $?; wait $b; echo $?"
    statuses = shell.run(script)[1].split()
    assert sorted(statuses) == ["0", "2"]
    said = (tmp_path / f"said{1 + statuses.index('2')}").read_text()
    assert said.startswith(f"fsaf publish: {out}: ") and "Traceback" not in said
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert fsaf.load(out, device="cpu").classes
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_mistake_leaves_no_folder(tmp_path: Path) -> None:
    file = shell.write_recipe(tmp_path, tmp_path / "none", tmp_path / "runs" / "mine")
    status, _, said = shell.run(f"$FSAF train {file}")
    assert status == 2 and not (tmp_path / "runs").exists(), said


def test_training_goes_on_in_a_folder_that_was_moved(root: Path, tmp_path: Path) -> None:
    out, moved = tmp_path / "run", tmp_path / "elsewhere" / "mine"
    file = shell.write_recipe(tmp_path, root, out, train__save_every=0)
    process = shell.start(f"exec $FSAF train {file} 2>&1", stdout=(tmp_path / "said").open("w"))
    shell.wait_for(lambda: shell.steps(out) >= 3)
    moved.parent.mkdir()
    out.rename(moved)
    at = shell.steps(moved)
    shell.wait_for(lambda: shell.steps(moved) >= at + 3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    said = (tmp_path / "said").read_text()
    assert f"warning: {out} was moved; training continues in {moved}" in said and "Traceback" not in said
    assert f"fsaf train --resume {moved}" in said.splitlines()[-1]
    assert shell.saved(moved) == shell.steps(moved) >= at + 3
    assert not out.exists() and not (moved / ".fsaf-lock").exists()


def test_a_deleted_folder_ends_training_and_its_state_is_kept(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    file = shell.write_recipe(tmp_path, root, out, train__save_every=10)
    process = training(file, out)
    shutil.rmtree(out)
    status, said = finish(process)
    rescued = tmp_path / "run-rescued"
    assert status == 2 and said.startswith(f"fsaf train: {out}: was deleted") and "free some" not in said
    assert str(rescued) in said and shell.saved(rescued) % 2 == 0
    assert not out.exists()
    command = f"$FSAF train --resume {rescued} --train.max_steps {shell.saved(rescued) + 2}"
    assert shell.run(command)[0] == 0
