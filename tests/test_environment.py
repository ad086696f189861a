"""Builds of PyTorch that cannot load torch_npu get one message, not an aborted Python or a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsaf.environment import check_builds
from fsaf.errors import UserError

pytestmark = pytest.mark.slow


def package(folder: Path, name: str, version: str) -> None:
    """Write an empty package ``name`` to ``folder``."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")
    (folder / name / "version.py").write_text(version)


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ("__version__ = '2.14.1+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", True),
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n", False),
        ("", False),
    ],
)
def test_a_cuda_build_beside_torch_npu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, refused: bool
) -> None:
    package(tmp_path, "torch", version)
    package(tmp_path, "torch_npu", "")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)
    if refused:
        with pytest.raises(UserError, match=r"build for CUDA 13\.0.*install the CPU build"):
            check_builds()
        monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    check_builds()


def test_torch_npu_without_cann(tmp_path: Path) -> None:
    """PyTorch loads its back ends itself; importing the package fails as it does without CANN."""
    info = tmp_path / "torch_npu-0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch_npu\nVersion: 0.0\n")
    (info / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = missing_npu:autoload\n")
    (tmp_path / "missing_npu.py").write_text(
        "raise ImportError('libascendcl.so: cannot open shared object file')"
    )
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "fsaf", "info"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "libascendcl.so" in done.stderr and "set_env.sh" in done.stderr
