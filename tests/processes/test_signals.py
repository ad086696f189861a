"""A closed terminal, Slurm's SIGUSR1 and a limit of CPU time stop a run as SIGTERM does."""

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

import shell

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU])
def test_a_signal_stops_the_run_as_sigterm_does(root: Path, tmp_path: Path, number: signal.Signals) -> None:
    """It goes to the loader's workers too, and comes again while the run stops."""
    out = tmp_path / "run"
    file = shell.write_recipe(tmp_path, root, out, data__workers=1)
    process = shell.start(f"exec $FSAF train {file}", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    shell.wait_for(lambda: shell.steps(out) >= 3)
    for _ in range(2):
        os.killpg(process.pid, number)
    said = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 128 + number, said
    assert f"stopped by {number.name} after step {shell.saved(out)}" in said.splitlines()[-1]
    assert shell.saved(out) == shell.steps(out) >= 3 and "Traceback" not in said


def test_closing_the_terminal_saves(root: Path, tmp_path: Path) -> None:
    """A shell in a real terminal that is closed: the kernel sends SIGHUP, and writing fails."""
    out = tmp_path / "run"
    file = shell.write_recipe(tmp_path, root, out)
    child, terminal = pty.fork()
    if child == 0:
        os.execle("/bin/bash", "bash", "-c", f"{shell.FSAF} train {file}; true", dict(os.environ))
    shell.wait_for(lambda: shell.steps(out) >= 3)
    os.close(terminal)
    os.waitpid(child, 0)
    shell.wait_for(lambda: (out / "checkpoints" / "last.pt").is_file())
    shell.wait_for(lambda: shell.saved(out) == shell.steps(out))


def test_nohup_goes_on_after_sighup(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    file = shell.write_recipe(tmp_path, root, out, train__epochs=12)
    process = shell.start(f"cd {tmp_path}; exec nohup $FSAF train {file}", stderr=subprocess.DEVNULL)
    shell.wait_for(lambda: shell.steps(out) >= 3)
    for _ in range(3):
        os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(60) == 0
    assert shell.saved(out) == 48


def test_a_limit_of_cpu_time_saves(root: Path, tmp_path: Path) -> None:
    """The kernel's own SIGXCPU, each second from the soft limit on."""
    out = tmp_path / "run"
    file = shell.write_recipe(tmp_path, root, out, train__epochs=10_000, train__save_every=0)
    status, _, said = shell.run(f"ulimit -S -t 9; exec $FSAF train {file} >/dev/null", timeout=120)
    assert status == 128 + signal.SIGXCPU, said
    assert shell.saved(out) == shell.steps(out) > 0 and "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_the_launcher_stops_all_processes(
    root: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    file = shell.write_recipe(tmp_path, root, out, data__batch_size=1)
    process = shell.start(f"exec $FSAF train {file} --devices 2 >/dev/null", stderr=subprocess.PIPE)
    shell.wait_for(lambda: shell.steps(out) >= 3)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 128 + number, said
    assert f"fsaf train: stopped by {number.name} after step {shell.saved(out)}" in said


def test_several_processes_under_nohup_go_on(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    file = shell.write_recipe(tmp_path, root, out, data__batch_size=1, train__epochs=6)
    script = f"cd {tmp_path}; exec nohup $FSAF train {file} --devices 2"
    process = shell.start(script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shell.wait_for(lambda: shell.steps(out) >= 3)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(60) == 0
    assert shell.saved(out) == 24
