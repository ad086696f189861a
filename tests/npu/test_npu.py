"""fsaf's commands with ``--device npu``, on a simulated NPU (``simulated_npu.py``) in a process of its own.

PyTorch loads the simulation as it loads torch_npu: through the entry point of an installed package.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import synthetic

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(hasattr(torch, "npu"), reason="a back end called npu is installed already")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables of a process in which a package called torch_npu is installed: the simulation."""
    site = tmp_path_factory.mktemp("site")
    package = site / "torch_npu-0.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: torch_npu\nVersion: 0.0\n")
    (package / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = simulated_npu:autoload\n")
    paths = os.pathsep.join([str(site), str(HERE)])
    return os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="session")
def facts(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``steps.py`` found."""
    folder = tmp_path_factory.mktemp("npu")
    synthetic.write_coco(folder / "data", synthetic.eight_pictures())
    synthetic.write_coco(folder / "data", synthetic.eight_pictures(1), name="val", first_id=50)
    recipe = synthetic.recipe(folder / "data", folder, model__backbone="test_efficientnet")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, str(HERE / "steps.py"), str(folder / "recipe.yaml"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "facts.json").read_text())


def test_the_simulation_stays_in_its_process(facts: dict[str, Any]) -> None:
    assert "simulated_npu" not in sys.modules
    assert facts["info"]["versions"]["torch-npu"] == "0.0"


def test_the_simulation_notices_violations(facts: dict[str, Any]) -> None:
    noticed = facts["noticed"]
    assert "on the same device" in noticed["two devices"]
    assert (noticed["host waits"], noticed["from device"]) == (1, 1)


def test_auto_takes_the_npu_and_info_says_what_that_means(facts: dict[str, Any]) -> None:
    info = facts["info"]
    assert info["device"] == "npu"
    assert [device["name"] for device in info["devices"]] == ["cpu", "npu:0"]
    assert info["devices"][1]["what"] == "simulated NPU"
    assert info["process_groups"]["backend"] == "hccl"
    assert info["fallbacks"]["nms"] is not None
    assert info["precision"] == {"bf16": True, "fp16": True}


# Half precision rounds differently where PyTorch's lists of operators for autocast differ, as in group norm.
@pytest.mark.parametrize(
    ("name", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-2), ("static", 1e-3), ("dynamic", 1e-3)]
)
def test_training_is_the_cpus(facts: dict[str, Any], name: str, tolerance: float) -> None:
    on_npu, on_cpu = facts["runs"][f"{name} npu"], facts["runs"][f"{name} cpu"]
    assert len(on_npu) == len(on_cpu) == 3
    for a, b in zip(on_npu, on_cpu, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=tolerance)
        assert a["loss_scale"] == b["loss_scale"]
        assert (a["grad_norm"] is None) == (b["grad_norm"] is None)
        assert a["memory_gb"] > 0
    assert on_npu[-1]["loss"] != on_npu[0]["loss"]


def test_loss_scales(facts: dict[str, Any]) -> None:
    scales = {
        name: [record["loss_scale"] for record in facts["runs"][f"{name} npu"]]
        for name in ("fp32", "bf16", "static")
    }
    assert scales == {"fp32": [1] * 3, "bf16": [1] * 3, "static": [32] * 3}
    assert facts["overflow"] == {"half": True, "moved": 0.0, "backed_off": 0.5}


def test_a_step_copies_its_batch_to_the_device_and_nothing_else(facts: dict[str, Any]) -> None:
    for counts in facts["each_step"].values():
        assert sum(counts.values()) > 1000
        assert counts["to device"] == 6  # images and the five tensors of ``Boxes``
        assert counts["from device"] == 0
        assert counts["host waits"] == 0
        assert counts.get("float64", 0) == 0


@pytest.mark.parametrize("trained_on", ["npu", "cpu"])
def test_evaluation_is_the_cpus(facts: dict[str, Any], trained_on: str) -> None:
    """The suppression of fixed shapes on the device against torchvision's kernel on the CPU."""
    on_npu, on_cpu = (facts["evaluations"][f"{trained_on} on {device}"] for device in ("npu", "cpu"))
    assert len(on_npu) == len(on_cpu) > 100
    for key in ("image_id", "category_id"):
        assert [found[key] for found in on_npu] == [found[key] for found in on_cpu]
    for key, tolerance in (("score", 1e-5), ("bbox", 2e-3)):
        difference = np.abs(
            np.array([found[key] for found in on_npu]) - np.array([found[key] for found in on_cpu])
        )
        assert difference.max() <= tolerance


def test_checkpoints_move_between_devices(facts: dict[str, Any]) -> None:
    assert facts["opened_on"] == "npu:0"
    assert facts["read_on"] == ["cpu"]
    from_npu, from_cpu = facts["runs"]["resumed npu"][-1], facts["runs"]["resumed cpu"][-1]
    assert from_npu["step"] == from_cpu["step"] == 4
    assert from_npu["loss"] == pytest.approx(from_cpu["loss"], rel=1e-5)


def test_a_device_number_beyond_those_there_are(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "fsaf", "info", "--device", "npu:1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (
        2,
        "fsaf info: device 'npu:1': not available here; give auto or cpu\n",
    )


def test_without_torch_npu_the_message_names_it() -> None:
    command = [sys.executable, "-m", "fsaf", "info", "--device", "npu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install torch-npu" in done.stderr
