"""fsaf's commands with ``--device npu`` on the real torch_npu, with CANN emulated (``emulator/README.md``).

torch_npu needs PyTorch's CPU build of its own version, so ``make npu`` installs both into an environment of
their own. The tests in ``emulated/`` run there, a file in a process; each test here is one of those files.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
FOLDER = Path(os.environ.get("FSAF_NPU_ENVIRONMENT") or REPOSITORY / ".venv-npu")
FILES = sorted(path.name for path in (HERE / "emulated").glob("test_*.py"))


def python() -> Path:
    """Python of the environment that ``make npu`` writes. Without it tests are skipped, or fail if
    $FSAF_REQUIRE_NPU is set."""
    path = FOLDER / "venv" / "bin" / "python"
    if not path.is_file():
        reason = (
            f"no torch_npu: {FOLDER} is not there; `make npu` writes it if pip finds a CPU build of PyTorch"
        )
        if os.environ.get("FSAF_REQUIRE_NPU"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def build(folder: Path, *options: str, **variables: str) -> dict[str, str]:
    """Compile an emulated CANN; return the environment variables that processes need."""
    emulator = HERE / "emulator"
    paths = os.pathsep.join(
        str(path) for path in (REPOSITORY / "src", emulator, REPOSITORY / "tests", HERE / "emulated")
    )
    environment = os.environ | {
        "PYTHONPATH": paths,
        "LD_LIBRARY_PATH": str(folder / "lib"),
        "ASCEND_HOME_PATH": str(folder),
        "ASCEND_OPP_PATH": str(folder / "opp"),
        "OMP_NUM_THREADS": "1",
        "TASK_QUEUE_ENABLE": "0",
        "CUDA_VISIBLE_DEVICES": "",
    }
    without_npu = environment | {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    command = [python(), emulator / "build.py", folder, *options]
    done = subprocess.run(command, env=without_npu, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return environment | variables


@pytest.mark.parametrize("name", FILES)
def test_on_the_real_torch_npu(name: str, tmp_path: Path) -> None:
    older = ["--without", "aclnnFusedSgd", "aclnnApplyAdamWV2"] if "older" in name else []
    chip = {"EMULATOR_SOC": "Ascend910A"} if "older" in name else {}
    environment = build(tmp_path / "cann", *older, EMULATOR_NPUS="2", **chip)
    command = [python(), "-m", "pytest", "-x", HERE / "emulated" / name, "--confcutdir", HERE / "emulated"]
    done = subprocess.run(
        [*command, "--basetemp", tmp_path / "tests"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    print(done.stdout[-12_000:], done.stderr[-4000:])
    assert done.returncode == 0


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return build(tmp_path_factory.mktemp("cann"))


def fsaf(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [python(), "-m", "fsaf", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_info_lists_the_devices_and_what_was_set(environment: dict[str, str]) -> None:
    # Without TASK_QUEUE_ENABLE, so that fsaf sets it.
    given = {name: value for name, value in environment.items() if name != "TASK_QUEUE_ENABLE"}
    done = fsaf(given | {"EMULATOR_NPUS": "2", "EMULATOR_SOC": "Ascend910A"}, "info", "--json")
    info = json.loads(done.stdout)
    assert [device["name"] for device in info["devices"]] == ["cpu", "npu:0", "npu:1"]
    assert info["device"] == "npu"
    assert info["devices"][1]["what"] == "Ascend910A"
    assert info["process_groups"] == {"backend": "hccl", "available": True}
    assert info["precision"]["fp16"]
    assert info["fallbacks"]["nms"] == "on the CPU"
    assert info["environment"] == {"TASK_QUEUE_ENABLE": "2", "CPU_AFFINITY_CONF": "2"}
    assert not info["compile"]["works"]


def test_a_device_number_beyond_those_there_are(environment: dict[str, str]) -> None:
    done = fsaf(environment, "info", "--device", "npu:1")
    message = "fsaf info: device 'npu:1': not available here; give auto or cpu"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, message)


def test_compiling_without_triton_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    options = ("--train.compile=true", "--model.weights=none", "--device=npu", f"--out={tmp_path / 'run'}")
    done = fsaf(environment, "benchmark", "lite0", "--seconds=0.1", *options[:3])
    assert done.returncode == 2
    assert "cannot compile for npu" in done.stderr and "train.compile_backend" in done.stderr


def test_without_torch_npu_the_message_names_it() -> None:
    command = [sys.executable, "-m", "fsaf", "info", "--device", "npu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install torch-npu" in done.stderr
