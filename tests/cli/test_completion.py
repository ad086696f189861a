"""The scripts of ``fsaf completion``, run by bash as when Tab is pressed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fsaf.cli import main
from fsaf.cli.completion import SHELLS
from fsaf.recipe import recipe_names

PRESS = """
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
COMPREPLY=()
_shtab_fsaf
echo "${{COMPREPLY[*]}}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "fsaf.bash"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "mine.txt").touch()
    (tmp_path / "best.pt").touch()
    expected = {
        "fsaf tr": ["train"],
        "fsaf train bccd": ["bccd_lite0"],
        "fsaf train mine": ["mine.yaml"],
        "fsaf train ''": [*recipe_names(), "mine.yaml"],
        "fsaf train lite0 --data.bat": ["--data.batch_size"],
        "fsaf train lite0 --train.precision b": ["bf16"],
        "fsaf train lite0 --train.precision bf16 --data.shuffle ''": ["true", "false"],
        "fsaf train lite0 --init be": ["best.pt"],
        "fsaf train lite0 --dry": ["--dry-run"],
        "fsaf evaluate be": ["best.pt"],
        "fsaf evaluate best.pt --optim": [],
        "fsaf predict best.pt mine.txt --format ''": ["images", "json"],
        "fsaf completion f": ["fish"],
    }
    presses = "".join(PRESS.format(words=words) for words in expected)
    done = subprocess.run(
        ["bash", "-c", f"source {script}; complete -p fsaf\n{presses}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0 and done.stderr == ""
    registered, *replies = done.stdout.splitlines()
    assert registered.endswith("-F _shtab_fsaf fsaf")
    found = {words: reply.split() for words, reply in zip(expected, replies, strict=True)}
    assert {words: sorted(reply) for words, reply in found.items()} == {
        words: sorted(reply) for words, reply in expected.items()
    }


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert "fsaf" in out and "data.batch_size" in out
    if program := shutil.which(shell) if shell in ("bash", "zsh") else None:
        done = subprocess.run([program, "-n", "-c", out], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
