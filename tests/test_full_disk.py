"""A full disk is one message for every verb that writes, and leaves nothing half-written."""

import os
import shutil
from pathlib import Path

import pytest

import shell
from synthetic import write_eight

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="needs root to mount a disk"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    write_eight(folder / "data")
    settings = {"train__max_steps": 1, "train__evaluate_every": 1}
    file = shell.write_recipe(folder, folder / "data", folder / "run", **settings)
    assert shell.run(f"$FSAF train {file}")[0] == 0
    (folder / "small").mkdir()
    return folder


@pytest.mark.parametrize(
    ("command", "left"),
    [
        ("publish run --out small/hub", []),
        ("publish run --out small", []),
        ("convert run small/x.safetensors", []),
        ("export run --out small/x.onnx", []),
        ("evaluate run --out small/e --predict.score_threshold 0", ["e/evaluation.json"]),
        ("report run --out small/r.html", []),
        ("quickstart --out small/q", []),
        ("train recipe.json --out small/t", None),
    ],
)
def test_a_full_disk_is_one_message(folder: Path, command: str, left: list[str] | None) -> None:
    """On a disk of 20 kB."""
    mount = "mount -t tmpfs -o size=20k tmpfs small"
    script = f"{mount}; $FSAF {command} >/dev/null; status=$?; find small -type f; exit $status"
    status, files, said = shell.run(f"cd {folder}; unshare -m bash -c '{script}'")
    assert status == 2 and said.count("\n") == 1, said
    assert said.startswith(f"fsaf {command.split()[0]}: small"), said
    assert "No space left on device" in said and "free some space" in said
    assert ".tmp" not in files
    if left is not None:
        assert files.split() == [f"small/{name}" for name in left]
