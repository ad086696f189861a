"""Files that are not checkpoints of this detector, or would run code, are refused with a message."""

import io
import os
import pickle
import re
import sys
from collections import OrderedDict
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoints.checkpoints import NAMES, refusal, saved
from fsaf.checkpoints.any_format import read_checkpoint
from fsaf.checkpoints.mmdetection import from_mmdetection
from fsaf.checkpoints.pickles import ALLOWED, load_plain
from fsaf.cli import main
from fsaf.data.records import Classes


def test_truncated_file(tmp_path: Path, r50: Path) -> None:
    whole = r50.read_bytes()
    for size in (0, 5, 1000, len(whole) // 2, len(whole) - 10):
        path = tmp_path / "cut.pth"
        path.write_bytes(whole[:size])
        assert "not a readable checkpoint, perhaps cut short" in refusal(path)
    assert "no such checkpoint" in refusal(tmp_path / "nowhere.pth")


def test_command_line_says_it_once_with_status_2(
    tmp_path: Path, r50: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cut.pth"
    path.write_bytes(r50.read_bytes()[:5000])
    target = tmp_path / "out.safetensors"
    assert main(["convert", str(path), str(target)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and str(path) in err
    assert list(tmp_path.iterdir()) == [path], "nothing half-written"


def test_another_detector(tmp_path: Path, small: dict[str, Tensor]) -> None:
    retina = small | {
        "bbox_head.retina_cls.weight": torch.zeros(27, 4, 3, 3),
        "bbox_head.retina_cls.bias": torch.zeros(27),
        "bbox_head.retina_reg.weight": torch.zeros(36, 4, 3, 3),
        "bbox_head.retina_reg.bias": torch.zeros(36),
    }
    message = refusal(saved(tmp_path / "retina.pth", {"state_dict": retina}))
    assert "another detector" in message and "9 anchors" in message
    faster = {name: value for name, value in small.items() if not name.startswith("bbox_head")}
    faster["rpn_head.rpn_cls.weight"] = torch.zeros(3, 4, 1, 1)
    message = refusal(saved(tmp_path / "faster.pth", {"state_dict": faster}))
    assert "not an FSAF" in message and "backbone, neck, rpn_head" in message


def test_a_plain_resnet(tmp_path: Path, small: dict[str, Tensor]) -> None:
    plain = {
        name.removeprefix("backbone."): value for name, value in small.items() if name.startswith("backbone.")
    }
    message = refusal(saved(tmp_path / "resnet50.pth", plain))
    assert "not an FSAF" in message and "--model.weights" in message


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"state_dict": {}}, {"state_dict": {"a": 1}}, 3])
def test_not_a_checkpoint_at_all(tmp_path: Path, content: object) -> None:
    assert "holds no 'state_dict' of tensors" in refusal(saved(tmp_path / "a.pth", content))


def test_missing_wrong_and_unknown_tensors_are_listed(tmp_path: Path, small: dict[str, Tensor]) -> None:
    del small["neck.fpn_convs.4.conv.bias"]
    small["backbone.layer2.0.conv1.weight"] = torch.zeros(8, 256, 1, 1)
    small["bbox_head.scales.0.scale"] = torch.zeros(())
    message = refusal(saved(tmp_path / "a.pth", {"state_dict": small}))
    assert "missing: neck.fpn_convs.4.conv.bias" in message
    assert "backbone.layer2.0.conv1.weight [8, 256, 1, 1] instead of [128, 256, 1, 1]" in message
    assert "unknown: bbox_head.scales.0.scale" in message


def test_a_backbone_of_another_depth(tmp_path: Path, small: dict[str, Tensor]) -> None:
    shallow = {name: value for name, value in small.items() if not name.startswith("backbone.layer3.5")}
    assert "(3, 4, 5, 3) blocks" in refusal(saved(tmp_path / "a.pth", {"state_dict": shallow}))


@pytest.mark.parametrize("meta", [None, "text", {"fsaf": {"config": {}}}, {"CLASSES": 3}])
def test_meta_that_says_nothing(tmp_path: Path, small: dict[str, Tensor], meta: Any) -> None:
    path = saved(tmp_path / "a.pth", {"meta": meta, "state_dict": small})
    assert read_checkpoint(path).classes == Classes(names=("class_0", "class_1", "class_2"), ids=(1, 2, 3))


def test_a_file_that_may_not_be_read(
    tmp_path: Path, small: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.pth", {"state_dict": small})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    assert "Permission denied" in refusal(path)


class Runs:
    """Object whose pickle is a function call, as in an attack."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, exec, getattr, pickle.loads])
def test_a_pickle_that_would_run_code_does_not(
    tmp_path: Path, small: dict[str, Tensor], function: Any, form: str
) -> None:
    mark = tmp_path / "mark"
    argument: Any = {os.system: f"touch {mark}", os.mkdir: str(mark)}.get(
        function, f"__import__('pathlib').Path({str(mark)!r}).touch()"
    )
    if function is pickle.loads:
        argument = pickle.dumps(Runs(os.mkdir, str(mark)))
    arguments = (0, "real") if function is getattr else (argument,)
    content = {"meta": {"hook": Runs(function, *arguments)}, "state_dict": small}
    path = tmp_path / "bad.pth"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"meta": content["meta"]}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    message = refusal(path)
    assert not mark.exists()
    if form != "plain pickle":  # PyTorch does not recognise such a file as its own
        assert function.__name__ in message and "run code" in message


def test_the_refused_type_is_named(tmp_path: Path, small: dict[str, Tensor]) -> None:
    class_ = type("Secret", (), {"__module__": "mmengine.runner.hidden"})
    module = ModuleType("mmengine.runner.hidden")
    module.Secret = class_  # type: ignore[attr-defined]
    path = written_with(
        {"mmengine.runner.hidden": module},
        tmp_path / "a.pth",
        {"message_hub": {"x": class_()}, "state_dict": small},
    )
    message = refusal(path)
    assert "mmengine.runner.hidden.Secret" in message and "state_dict" in message


def written_with(modules: dict[str, ModuleType], path: Path, content: object) -> Path:
    """Save while modules of MMDetection, which are not installed here, can be imported."""
    packages = {".".join(name.split(".")[:k]) for name in modules for k in range(1, name.count(".") + 1)}
    added = {name: ModuleType(name) for name in packages if name not in sys.modules} | modules
    sys.modules.update(added)
    try:
        return saved(path, content)
    finally:
        for name in added:
            del sys.modules[name]


def history_module() -> ModuleType:
    """Stand-in for mmengine.logging.history_buffer, with the part of its class that pickle uses."""
    module = ModuleType("mmengine.logging.history_buffer")

    class HistoryBuffer:
        def __init__(self, values: list[float]) -> None:
            self._log_history = np.array(values)
            self._count_history = np.array([1] * len(values))
            self.max_length = 1000000

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    module.HistoryBuffer = HistoryBuffer  # type: ignore[attr-defined]
    return module


def config_module() -> ModuleType:
    """Stand-in for mmengine.config.config, with a ConfigDict that pickles as the real one."""
    module = ModuleType("mmengine.config.config")

    class ConfigDict(dict):
        def __reduce_ex__(self, _: Any) -> Any:
            return (type(self), (dict(self),), None, None, None)

    ConfigDict.__module__, ConfigDict.__qualname__ = module.__name__, "ConfigDict"
    module.ConfigDict = ConfigDict  # type: ignore[attr-defined]
    return module


def test_the_extra_objects_of_3x_are_read_over(tmp_path: Path, small: dict[str, Tensor]) -> None:
    history, config = history_module(), config_module()
    content = {
        "meta": {
            "epoch": 12,
            "cfg": "model = dict(type='FSAF')",
            "dataset_meta": config.ConfigDict(classes=NAMES, palette=[(1, 2, 3)]),
            "time": datetime(2024, 1, 1),
            "work_dir": Path("work_dirs"),
        },
        "state_dict": small,
        "message_hub": {
            "log_scalars": OrderedDict({"train/loss": history.HistoryBuffer([3.0, 2.5])}),
            "runtime_info": OrderedDict({"epoch": 11, "best": np.float64(0.374), "seed": np.int64(7)}),
            "resumed_keys": OrderedDict({"train/loss": True}),
        },
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.01}]},
        "param_schedulers": [{"base_values": [0.01], "last_step": 5}],
    }
    modules = {module.__name__: module for module in (history, config)}
    path = written_with(modules, tmp_path / "a.pth", content)
    assert from_mmdetection(load_plain(path), str(path))[2].names == NAMES
    assert not any(name.startswith("mmengine") for name in sys.modules), "nothing is imported for it"


def test_numpy_objects_of_either_generation(tmp_path: Path) -> None:
    """A file names numpy's internals as the numpy version that wrote it does, 1 or 2."""
    buffer = io.BytesIO()
    pickle.dump({"a": np.arange(3.0), "b": np.float32(2), "c": np.dtype("i8")}, buffer, protocol=2)
    other = buffer.getvalue().replace(b"numpy._core.", b"numpy.core.")
    assert other != buffer.getvalue()
    for data in (buffer.getvalue(), other):
        stored = saved(tmp_path / "a.pth", {"x": 1})
        rewritten(stored, data)
        assert set(load_plain(stored)) == {"a", "b", "c"}


def rewritten(path: Path, data: bytes) -> None:
    """Put another pickle into a file of torch.save, without rewriting what torch.save writes around it."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, part in parts.items():
            archive.writestr(name, data if name.endswith("data.pkl") else part)


def test_what_is_allowed_is_not_code() -> None:
    """Allowed names lead to stand-ins, never to the function or class of that name."""
    for stand_in, name in ALLOWED:
        assert stand_in is dict or not vars(stand_in()), name
        assert not re.search(r"\b(os|sys|posix|subprocess|builtins|importlib|pickle|torch)\b", name)
