"""Checkpoints and ONNX files damaged at random: read or refused in one message, in little memory.

FSAF_DAMAGES=1000 damages as many checkpoints, and half as many ONNX files. Figures: docs/lab/faults.md.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import damaged_files
from fsaf.checkpoints.any_format import convert
from fsaf.detection.detector import Detector
from fsaf.exporting.onnx import export_onnx
from random_networks import CLASSES, CONFIG, SIZE, random_network

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("FSAF_DAMAGES", "30"))
MEGABYTES = 500
"""More than that is a file that takes memory."""


@pytest.mark.parametrize(("suffix", "share"), [(".pt", 0.6), (".safetensors", 0.4), (".onnx", 0.5)])
def test_a_damaged_file_is_read_or_refused_in_one_message(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a{suffix}"
    network = random_network()
    if suffix == ".onnx":
        export_onnx(network, CLASSES, CONFIG, path, size=SIZE)
    else:
        Detector(network, CLASSES, CONFIG).save(tmp_path / "a.pt")
        convert(tmp_path / "a.pt", path)
    count = round(share * COUNT)
    done = subprocess.run(
        [sys.executable, damaged_files.__file__, str(path), str(count), "0"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        timeout=30 + 10 * count,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    if "FSAF_DAMAGES" in os.environ:
        print(suffix, found)
    assert not found["faults"]
    assert sum(found["outcomes"].values()) == count and found["outcomes"]["refused"] > count / 3
    assert found["memory_mb"] < MEGABYTES
