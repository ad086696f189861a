"""Loader processes that stall, or that cannot hand over their batches, in real runs."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import shell

pytestmark = pytest.mark.slow

IMPATIENT = "import sys, fsaf.data.workers as w; w.PATIENCE = 2; from fsaf.cli import main; sys.exit(main())"
"""``fsaf`` that reports a stalled process after 2 seconds instead of 60."""
NO_MEMORY = "unshare -m bash -c 'mount -t tmpfs -o size={} tmpfs /dev/shm && exec $FSAF train {}'"
"""Train with a /dev/shm of that size, as containers have it."""


def workers(pid: int) -> list[int]:
    """Return the loader processes of a process: its children with the same command line."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if Path(f"/proc/{child}/cmdline").read_bytes() == command]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_loader_process_is_reported_and_the_run_can_be_stopped(
    root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out, said = tmp_path / "run", tmp_path / "said"
    file = shell.write_recipe(tmp_path, root, out, data__workers=2, train__save_every=0)
    with said.open("w") as output:
        process = shell.start(
            f"exec {sys.executable} -c '{IMPATIENT}' train {file}", stdout=output, stderr=output
        )
    shell.wait_for(lambda: shell.steps(out) >= 3)
    for worker in (stopped := workers(process.pid)):
        os.kill(worker, signal.SIGSTOP)
    shell.wait_for(lambda: "no batch for " in said.read_text())
    (line,) = [line for line in said.read_text().splitlines() if "no batch for " in line]
    assert any(f"loader process {worker} is reading " in line for worker in stopped)
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert f"stopped by {number.name} after step {shell.saved(out)}" in said.read_text().splitlines()[-1]
    assert shell.saved(out) == shell.steps(out) >= 3
    assert not any(Path(f"/proc/{worker}").exists() for worker in stopped)


def test_a_stopped_loader_process_that_goes_on_is_waited_for(root: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "run", tmp_path / "said"
    file = shell.write_recipe(tmp_path, root, out, data__workers=1, train__epochs=10)
    with said.open("w") as output:
        process = shell.start(
            f"exec {sys.executable} -c '{IMPATIENT}' train {file}", stdout=output, stderr=output
        )
    shell.wait_for(lambda: shell.steps(out) >= 3)
    (worker,) = workers(process.pid)
    os.kill(worker, signal.SIGSTOP)
    shell.wait_for(lambda: "no batch for " in said.read_text())
    os.kill(worker, signal.SIGCONT)
    assert process.wait(60) == 0
    assert shell.saved(out) == 40


def test_an_evaluation_with_a_stopped_loader_process_can_be_stopped(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = {"train__epochs": 1, "data__workers": 1, "data__batch_size": 1, "train__evaluate_every": 1}
    file = shell.write_recipe(tmp_path, root, out, **settings)
    # The worker of the evaluation stops itself at its first image.
    script = (
        "import os, signal, sys, fsaf.scoring.evaluate as e\n"
        "class Stopping(e.Images):\n"
        "    def __getitem__(self, draw):\n"
        "        os.kill(os.getpid(), signal.SIGSTOP)\n"
        "e.Images = Stopping\n"
        "from fsaf.cli import main\n"
        "sys.exit(main())"
    )
    process = shell.start(f'exec {sys.executable} -c "{script}" train {file}', stderr=subprocess.PIPE)
    shell.wait_for(lambda: shell.steps(out) == 8 and stopped(process.pid))
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=20)[1].decode()
    assert process.returncode == 143 and "stopped by SIGTERM after step 8" in said
    assert shell.saved(out) == 8


def stopped(pid: int) -> bool:
    """Return True if a child of a process is stopped."""
    return any(Path(f"/proc/{worker}/stat").read_text().split()[2] == "T" for worker in workers(pid))


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_loader_processes_end_with_a_killed_main_process(root: Path, tmp_path: Path, method: str) -> None:
    out = tmp_path / "run"
    file = shell.write_recipe(tmp_path, root, out, data__workers=2)
    code = (
        f'import multiprocessing, sys; multiprocessing.set_start_method("{method}"); '
        "from fsaf.cli import main; sys.exit(main())"
    )
    script = f"exec {sys.executable} -c '{code}' train {file}"
    process = shell.start(script, stdout=subprocess.DEVNULL, env={"MARK": str(tmp_path)})
    shell.wait_for(lambda: shell.steps(out) >= 3)
    mark = f"MARK={tmp_path}".encode()
    assert len(with_variable(mark)) >= 3
    process.kill()
    process.wait()
    shell.wait_for(lambda: not with_variable(mark), 20)


def with_variable(mark: bytes) -> list[str]:
    """Return the processes that have a variable in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # ended meanwhile
            if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(folder.name)
    return found


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="needs root to mount a /dev/shm")
@pytest.mark.parametrize("size", ["4k", "100k"])
def test_a_full_dev_shm_is_one_message(root: Path, tmp_path: Path, size: str) -> None:
    """At the start, and for a batch."""
    out = tmp_path / "run"
    file = shell.write_recipe(tmp_path, root, out, data__workers=2)
    status, _, said = shell.run(NO_MEMORY.format(size, file))
    assert status == 2 and said.count("\n") == 1, said
    assert "/dev/shm" in said and "data.workers, now 2" in said and "No space left" in said


def test_too_many_open_files_is_one_message(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    file = shell.write_recipe(tmp_path, root, out, data__workers=2, train__epochs=2)
    messages = ""
    for limit in (28, 34, 40):  # the number needed differs between systems
        status, _, said = shell.run(f"ulimit -n {limit}; exec $FSAF train {file} --resume auto >/dev/null")
        assert "Traceback" not in said and (status, said.count("\n")) in ((0, 0), (2, 1)), said
        messages += said
    assert "Too many open files" in messages and "data.workers, now 2" in messages
