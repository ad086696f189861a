"""Every operator of the training step and of inference runs on an NPU, by torch-npu's own tables."""

import json
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from scripts import TOOLS, load_script

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_script(TOOLS / "npu_operators.py")


def test_every_recorded_operator_has_an_npu_kernel_or_is_made_of_others(tool: ModuleType) -> None:
    tables = tool.kept_tables()
    recorded = tool.recorded()
    assert len(recorded) == 3
    for title, operators in recorded.items():
        assert len(operators) > 40
        missing = [name for name in operators if tool.how_npu_runs(name, tables) is None]
        assert missing == [], title


def test_the_kept_tables_are_whole(tool: ModuleType) -> None:
    tables = tool.kept_tables()
    assert tables.version == "2.14.0"
    assert len(tables.kernels) > 1000 and len(tables.converters) > 300
    assert {"aten.convolution.default", "aten._fused_sgd_.default", "aten.where.self"} <= tables.kernels
    assert "aten.log_sigmoid_forward.default" in tables.converters
    for refused in ("binary_cross_entropy_with_logits", "softplus"):  # their converters only raise
        assert f"aten.{refused}.default" not in tables.converters


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("aten.mine.default", "kernel"),
        ("aten.argmax.default", "out form"),
        ("aten.scatter.value", "out form"),
        ("aten.argmin.default", None),  # structured like argmax, but its out form is not in the list
        ("aten.masked_fill.Scalar", "composite"),
        ("aten.transpose.int", "composite"),
        ("aten.nonzero.default", None),
        ("profiler._record_function_enter_new.default", "host"),
    ],
)
def test_how_an_operator_runs(tool: ModuleType, name: str, how: str | None) -> None:
    kernels = {"aten.mine.default", "aten.argmax.out", "aten.scatter.value_out"}
    tables = tool.Tables(version="0", kernels=frozenset(kernels), converters=frozenset())
    assert tool.how_npu_runs(name, tables) == how


def test_a_wheel_is_read(tool: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "torch_npu-9.8.7-cp311-none-any.whl"
    package = "torch_npu/dynamo/torchair/_ge_concrete_graph/ge_converter/aten"
    with zipfile.ZipFile(path, "w") as wheel:
        native = "supported:\n- add.Tensor\n- func: relu\n  op_api: True\n- func: mul(Tensor a) -> b\n"
        native += "custom:\n- func: npu_own(Tensor a) -> b\n"
        wheel.writestr("torch_npu/csrc/aten/npu_native_functions.yaml", native)
        wheel.writestr(
            f"{package}/add.py",
            "@declare_supported([])\n"
            "@register_fx_node_ge_converter(torch.ops.aten.add.Tensor)\n"
            'def one(a):\n    """NB"""\n    if a:\n        raise RuntimeError()\n    return ge.Add(a)\n'
            "@register_fx_node_ge_converter(torch.ops.aten.add.out)\n"
            'def two(a):\n    """NB"""\n    raise NotImplementedError("not there")\n',
        )
    tables = tool.read_wheel(path)
    assert tables.version == "9.8.7"
    assert tables.kernels == {"aten.add.Tensor", "aten.relu.default", "aten.mul.default"}
    assert tables.converters == {"aten.add.Tensor"}


def test_the_tool_prints_and_keeps(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "torch_npu-9.8.7-cp311-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("a/npu_native_functions.yaml", "supported: [add.Tensor]\n")
    monkeypatch.setattr(tool, "KEPT", tmp_path / "kept.json")
    monkeypatch.setattr(
        tool, "recorded", lambda: {"a step": {"aten.add.Tensor": 3, "aten.nonzero.default": 1}}
    )
    monkeypatch.setattr("sys.argv", ["npu_operators.py", str(path), "--write"])
    tool.main()
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["aten.add.Tensor", "3", "kernel", "-"] in printed
    assert ["aten.nonzero.default", "1", "MISSING", "-"] in printed
    assert json.loads((tmp_path / "kept.json").read_text())["torch_npu"] == "9.8.7"
