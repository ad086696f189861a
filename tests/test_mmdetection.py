"""MMDetection's checkpoints: what is read, what is refused, and that the figures are MMDetection 3.3.0's."""

import io
import json
import os
import pickle
import re
import sys
import zlib
from collections import OrderedDict
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fsaf.cli import main
from fsaf.config import Config, ModelConfig
from fsaf.convert import read_checkpoint, write_checkpoint
from fsaf.convert.coco import COCO
from fsaf.convert.mmdetection import read_mmdetection
from fsaf.convert.pickles import ALLOWED, load_plain
from fsaf.data.records import Classes
from fsaf.data.transforms import read_image, resize, resized_size
from fsaf.errors import UserError
from fsaf.model.detector import FSAF
from fsaf.recipe import load_recipe
from fsaf.results.metrics import METRICS
from fsaf.train.checkpoint import make_checkpoint

ORACLE = Path(__file__).parent / "data" / "oracle"


def rule(name: str, shape: list[int]) -> Tensor:
    """A tensor of the checkpoint that the reference figures were computed with: a function of its name."""
    rng = np.random.default_rng([20260101, zlib.crc32(name.encode())])
    gain = {"retina_cls": 0.12, "retina_reg": 0.1}.get(name.split(".")[1], 1.0)
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.long)
    if name.endswith("running_var"):
        value = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
        value = rng.normal(0, 0.1, shape)
    elif len(shape) == 1 and name.endswith("weight"):
        value = rng.uniform(0.8, 1.2, shape) * (0.3 if "bn3" in name else 1.0)
    elif name.endswith("retina_cls.bias"):
        value = rng.normal(-4.0, 0.3, shape)
    elif name.endswith("retina_reg.bias"):
        value = rng.uniform(0.3, 0.8, shape)
    elif len(shape) == 1:
        value = rng.normal(0, 0.02, shape)
    else:
        value = rng.normal(0, gain * (2.0 / int(np.prod(shape[1:]))) ** 0.5, shape)
    return torch.from_numpy(np.asarray(value, np.float32))


@pytest.fixture(scope="module")
def shapes() -> dict[str, list[int]]:
    """Every tensor of MMDetection's R-50 checkpoint, in its order."""
    return json.loads((ORACLE / "fsaf_r50_shapes.json").read_text())


@pytest.fixture(scope="module")
def r50(shapes: dict[str, list[int]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the reference figures."""
    path = tmp_path_factory.mktemp("r50") / "fsaf_r50.pth"
    state = {name: rule(name, shape) for name, shape in shapes.items()}
    torch.save({"meta": {"dataset_meta": {"classes": None}}, "state_dict": state}, path)
    return path


@pytest.fixture
def small() -> dict[str, Tensor]:
    """An FSAF of MMDetection that is quick to write: R-50 with a thin head, three classes."""
    return thin_state("resnet50", 3)


def thin_state(backbone: str, classes: int, norm: Any = "none") -> dict[str, Tensor]:
    """MMDetection's names, written out here as its modules are called; one storage for all zeros."""
    channels, convs = (64 if norm == "group" else 4), 2
    shapes: dict[str, tuple[int, ...]] = {}
    grouped = backbone.startswith("resnext")

    def norm_of(name: str, width: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()

    shapes["backbone.conv1.weight"] = (64, 3, 7, 7)
    norm_of("backbone.bn1", 64)
    previous = 64
    for stage, blocks in enumerate((3, 4, 6 if backbone == "resnet50" else 23, 3), start=1):
        out = 128 * 2**stage
        width = out // 2 if not grouped else out
        width = width // 2 if not grouped else width
        for i in range(blocks):
            block = f"backbone.layer{stage}.{i}"
            shapes[f"{block}.conv1.weight"] = (width, previous, 1, 1)
            shapes[f"{block}.conv2.weight"] = (width, width // 64 if grouped else width, 3, 3)
            shapes[f"{block}.conv3.weight"] = (out, width, 1, 1)
            for k, size in enumerate((width, width, out), start=1):
                norm_of(f"{block}.bn{k}", size)
            if i == 0:
                shapes[f"{block}.downsample.0.weight"] = (out, previous, 1, 1)
                norm_of(f"{block}.downsample.1", out)
            previous = out
    for i, width in enumerate((512, 1024, 2048)):
        shapes[f"neck.lateral_convs.{i}.conv.weight"] = (channels, width, 1, 1)
        shapes[f"neck.lateral_convs.{i}.conv.bias"] = (channels,)
    for i, width in enumerate((channels, channels, channels, 2048, channels)):
        shapes[f"neck.fpn_convs.{i}.conv.weight"] = (channels, width, 3, 3)
        shapes[f"neck.fpn_convs.{i}.conv.bias"] = (channels,)
    for tower in ("cls_convs", "reg_convs"):
        for i in range(convs):
            shapes[f"bbox_head.{tower}.{i}.conv.weight"] = (channels, channels, 3, 3)
            if norm == "group":
                shapes[f"bbox_head.{tower}.{i}.gn.weight"] = (channels,)
                shapes[f"bbox_head.{tower}.{i}.gn.bias"] = (channels,)
            else:
                shapes[f"bbox_head.{tower}.{i}.conv.bias"] = (channels,)
    for name, width in (("retina_cls", classes), ("retina_reg", 4)):
        shapes[f"bbox_head.{name}.weight"] = (width, channels, 3, 3)
        shapes[f"bbox_head.{name}.bias"] = (width,)
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


def saved(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def refusal(path: Path) -> str:
    """The one message with which a file is refused, from the command line."""
    with pytest.raises(UserError) as error:
        read_checkpoint(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


# What is read


def test_every_tensor_of_the_r50_checkpoint_has_its_place(r50: Path, shapes: dict[str, list[int]]) -> None:
    state, config, classes = read_mmdetection(r50)
    model = FSAF(config, len(classes))
    model.load_state_dict(state)
    assert config == ModelConfig(weights="none")
    assert classes == COCO
    # The same values in the same places, told by what MMDetection's modules are called.
    for name, tensor in (
        ("backbone.layer3.5.bn2.running_var", model.backbone.body.layer3[5].bn2.running_var),
        ("neck.lateral_convs.0.conv.bias", model.pyramid.lateral[0].bias),
        ("neck.fpn_convs.2.conv.weight", model.pyramid.smooth[2].weight),
        ("neck.fpn_convs.3.conv.weight", model.pyramid.p6.weight),
        ("neck.fpn_convs.4.conv.weight", model.pyramid.p7.weight),
        ("bbox_head.cls_convs.3.conv.weight", model.head.class_tower[6].weight),
        ("bbox_head.reg_convs.1.conv.bias", model.head.box_tower[2].bias),
        ("bbox_head.retina_cls.weight", model.head.classes.weight),
        ("bbox_head.retina_reg.bias", model.head.distances.bias),
    ):
        assert torch.equal(tensor, rule(name, shapes[name])), name


@pytest.mark.parametrize(
    ("backbone", "classes", "norm"),
    [
        ("resnet50", 1, "none"),
        ("resnet101", 7, "none"),
        ("resnext101_64x4d", 80, "none"),
        ("resnet50", 3, "group"),
    ],
)
def test_networks_are_told_apart_by_names_and_shapes(
    tmp_path: Path, backbone: str, classes: int, norm: str
) -> None:
    path = saved(tmp_path / "a.pth", {"state_dict": thin_state(backbone, classes, norm)})
    _, config, found = read_mmdetection(path)
    assert config.backbone.split(".")[0] == backbone
    assert (config.convs, config.norm, len(found)) == (2, norm, classes)


def test_coco_classes() -> None:
    assert len(COCO) == 80
    names = dict(zip(COCO.ids, COCO.names, strict=True))
    # From COCO's instances_val2017.json.
    expected = {
        1: "person",
        13: "stop sign",
        27: "backpack",
        44: "bottle",
        67: "dining table",
        90: "toothbrush",
    }
    assert {id_: names[id_] for id_ in expected} == expected
    assert not set(names) & {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def test_coco_classes_are_those_of_the_data_set(test_data: Path) -> None:
    data = json.loads((test_data / "minicoco/annotations/instances_val.json").read_text())
    assert dict(zip(COCO.ids, COCO.names, strict=True)) == {c["id"]: c["name"] for c in data["categories"]}


NAMES = ("ant", "bee", "fly")


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        ({"CLASSES": NAMES, "mmdet_version": "2.10.0"}, NAMES),
        ({"CLASSES": list(NAMES)}, NAMES),
        ({"dataset_meta": {"classes": NAMES, "palette": [(220, 20, 60)]}}, NAMES),
        ({"dataset_meta": {"CLASSES": NAMES}}, NAMES),
        ({"dataset_meta": {"classes": None}, "CLASSES": NAMES}, NAMES),
        ({"dataset_meta": {"classes": None}}, ("class_0", "class_1", "class_2")),
        ({"dataset_meta": None}, ("class_0", "class_1", "class_2")),
        (None, ("class_0", "class_1", "class_2")),
    ],
)
def test_class_names_of_2x_and_3x(
    tmp_path: Path, small: dict[str, Tensor], meta: Any, names: tuple[str, ...]
) -> None:
    path = saved(tmp_path / "a.pth", {"meta": meta, "state_dict": small})
    assert read_mmdetection(path)[2] == Classes(names=names, ids=(1, 2, 3))


def test_names_for_another_number_of_classes(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path = saved(tmp_path / "a.pth", {"meta": {"CLASSES": ("ant", "bee")}, "state_dict": small})
    assert "names 2 classes, bbox_head.retina_cls.weight has 3" in refusal(path)


@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": state}], ids=["bare", "wrapped"])
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_bare_prefixed_and_averaged_state(
    tmp_path: Path, small: dict[str, Tensor], wrap: Any, options: dict[str, bool]
) -> None:
    state = OrderedDict((f"module.{name}", tensor) for name, tensor in small.items())
    state["ema_bbox_head_retina_cls_bias"] = torch.ones(3)
    path = saved(tmp_path / "a.pth", wrap(state), **options)
    found, config, _ = read_mmdetection(path)
    FSAF(config, 3).load_state_dict(found)
    assert not found["head.classes.bias"].any()


def test_mean_and_deviation_come_from_the_stored_config(tmp_path: Path, small: dict[str, Tensor]) -> None:
    text = "img_norm_cfg = dict(\n    mean=[1.5, 2, 3], std=[4.0, 5.0, 6.0], to_rgb=True)"
    for key, config in (("config", text), ("cfg", text.replace("img_norm_cfg", "data_preprocessor"))):
        path = saved(tmp_path / "a.pth", {"meta": {key: config}, "state_dict": small})
        model = read_mmdetection(path)[1]
        assert (model.mean, model.std) == ((1.5, 2.0, 3.0), (4.0, 5.0, 6.0))
    for sign in ("style='caffe'", "bgr_to_rgb=False"):
        path = saved(tmp_path / "b.pth", {"meta": {"cfg": f"dict({sign})"}, "state_dict": small})
        assert "Caffe" in refusal(path)


# What is refused


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


class Runs:
    """Pickles to a call, as an attack would."""

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
    if form != "plain pickle":  # torch does not take that for one of its files
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
    """Save while modules that are not installed here can be imported, as MMDetection does."""
    packages = {".".join(name.split(".")[:k]) for name in modules for k in range(1, name.count(".") + 1)}
    added = {name: ModuleType(name) for name in packages if name not in sys.modules} | modules
    sys.modules.update(added)
    try:
        return saved(path, content)
    finally:
        for name in added:
            del sys.modules[name]


def history_module() -> ModuleType:
    """mmengine.logging.history_buffer, with as much of its class as pickle sees."""
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
    """mmengine.config.config, with ConfigDict as it pickles itself."""
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
    assert read_mmdetection(path)[2].names == NAMES
    assert not any(name.startswith("mmengine") for name in sys.modules), "nothing is imported for it"


def test_numpy_objects_of_either_generation(tmp_path: Path) -> None:
    """Files name numpy's internals as numpy 1 or as numpy 2 does, whichever wrote them."""
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
    """Stand-ins only: no allowed name leads to the function or class of that name."""
    for stand_in, name in ALLOWED:
        assert stand_in is dict or not vars(stand_in()), name
        assert not re.search(r"\b(os|sys|posix|subprocess|builtins|importlib|pickle|torch)\b", name)


# What is written


@pytest.mark.parametrize("steps", [["a.safetensors", "b.pth"], ["a.pt", "b.pth"], ["a.pth", "b.pt", "c.pth"]])
def test_mmdetection_to_ours_and_back_bit_by_bit(
    tmp_path: Path, r50: Path, shapes: dict[str, list[int]], steps: list[str]
) -> None:
    source = r50
    for step in steps:
        assert main(["convert", str(source), str(tmp_path / step)]) == 0
        source = tmp_path / step
    back = torch.load(source, weights_only=True)
    assert list(back["meta"]["CLASSES"]) == back["meta"]["dataset_meta"]["classes"] == list(COCO.names)
    assert {name: list(tensor.shape) for name, tensor in back["state_dict"].items()} == shapes
    for name, tensor in torch.load(r50, weights_only=True)["state_dict"].items():
        assert tensor.numpy().tobytes() == back["state_dict"][name].numpy().tobytes(), name
        assert tensor.dtype == back["state_dict"][name].dtype


@pytest.mark.parametrize("steps", [["a.pth", "b.pt"], ["a.safetensors", "b.pt"], ["a.pth", "b.safetensors"]])
@pytest.mark.parametrize("norm", ["none", "group"])
def test_ours_to_others_and_back_with_everything(tmp_path: Path, steps: list[str], norm: Any) -> None:
    config = Config(model=ModelConfig(weights="none", channels=64, convs=3, norm=norm, std=(1.0, 2.0, 3.0)))
    config.predict.nms_iou = 0.6
    classes = Classes(names=("zebra", "ant"), ids=(24, 7))
    state = FSAF(config.model, 2).state_dict()
    state["head.classes.bias"] = torch.tensor([float("nan"), -0.0])
    ours = make_checkpoint(state, classes, config)
    write_checkpoint(tmp_path / "ours.pt", ours)
    source = tmp_path / "ours.pt"
    for step in steps:
        write_checkpoint(tmp_path / step, read_checkpoint(source))
        source = tmp_path / step
    back = read_checkpoint(source)
    assert {key: value for key, value in back.items() if key != "model"} == {
        key: value for key, value in ours.items() if key != "model"
    }
    assert set(back["model"]) == set(state)
    for name, tensor in state.items():
        assert tensor.numpy().tobytes() == back["model"][name].numpy().tobytes(), name


def test_training_state_stays_behind(tmp_path: Path, tiny_model_config: ModelConfig) -> None:
    state = FSAF(tiny_model_config, 1).state_dict()
    ours = make_checkpoint(
        state, Classes(names=("a",), ids=(1,)), Config(model=tiny_model_config), training={"step": 3}
    )
    write_checkpoint(tmp_path / "a.safetensors", ours)
    assert "training" not in read_checkpoint(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="has ResNet-50, ResNet-101 or ResNeXt-101-64x4d as its backbone"):
        write_checkpoint(tmp_path / "a.pth", ours)
    with pytest.raises(UserError, match="give a name that ends in"):
        write_checkpoint(tmp_path / "a.bin", ours)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    write_checkpoint(tmp_path / "a.bin", ours, "safetensors")
    assert set(read_checkpoint(tmp_path / "a.bin")["model"]) == set(state)


def test_damaged_and_foreign_safetensors(tmp_path: Path, tiny_model_config: ModelConfig) -> None:
    from safetensors.torch import save_file

    state = FSAF(tiny_model_config, 1).state_dict()
    path = tmp_path / "a.safetensors"
    write_checkpoint(
        path, make_checkpoint(state, Classes(names=("a",), ids=(1,)), Config(model=tiny_model_config))
    )
    cut = tmp_path / "cut.safetensors"
    for size in (200, path.stat().st_size - 8):
        cut.write_bytes(path.read_bytes()[:size])
        assert "perhaps cut short" in refusal(cut)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    assert "without fsaf's header" in refusal(tmp_path / "foreign.safetensors")


# The same pixels and figures


@pytest.mark.parametrize(
    ("size", "new", "crc"),
    [
        ((37, 61), (53, 88), 547575828),
        ((61, 37), (20, 12), 4249597391),
        ((40, 64), (20, 32), 278275779),
        ((5, 3), (64, 31), 4042611647),
    ],
)
def test_resize_gives_the_pixels_of_opencv(size: tuple[int, int], new: tuple[int, int], crc: int) -> None:
    """Checksums of cv2.resize(image, (width, height)) of opencv-python-headless 5.0.0.93."""
    image = np.random.default_rng(7).integers(0, 256, (*size, 3), np.uint8)
    ours = resize(torch.from_numpy(image).permute(2, 0, 1), new)
    assert zlib.crc32(ours.permute(1, 2, 0).contiguous().numpy().tobytes()) == crc


@pytest.fixture(scope="module")
def pictures() -> list[dict[str, Any]]:
    return json.loads((ORACLE / "predictions_r50.json").read_text())["images"]


def test_input_and_raw_outputs_are_mmdetections(
    test_data: Path, r50: Path, pictures: list[dict[str, Any]]
) -> None:
    state, config, classes = read_mmdetection(r50)
    model = FSAF(config, len(classes)).eval()
    model.load_state_dict(state)
    for entry in pictures:
        image = read_image(test_data / "minicoco/images" / entry["file_name"])
        image = resize(image, resized_size(*image.shape[1:], 400, 667))
        canvas = torch.zeros(entry["input_shape"], dtype=torch.uint8)
        canvas[0, :, : image.shape[1], : image.shape[2]] = image
        sizes = torch.tensor([image.shape[1:]])
        with torch.inference_mode():
            normal, outputs = model.normalise(canvas, sizes), model(canvas, sizes)
        found = {
            "input_mean": normal.mean(),
            "input_std": normal.std(),
            "cls_mean": torch.stack([level.mean() for level in outputs.logits]),
            "cls_std": torch.stack([level.std() for level in outputs.logits]),
            "reg_mean": torch.stack([level.mean() for level in outputs.distances]),
        }
        for key, value in found.items():
            torch.testing.assert_close(value, torch.tensor(entry[key]), rtol=1e-5, atol=1e-6, msg=key)


def test_detections_are_mmdetections(
    test_data: Path, r50: Path, pictures: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    from torchvision.ops import box_iou

    names = [str(test_data / "minicoco/images" / entry["file_name"]) for entry in pictures]
    options = (
        "--format json --short-side 400 --long-side 667 --pad 32 --score-threshold 0.05 --max-detections 100"
    )
    assert main(["predict", str(r50), *names, *options.split(), "--device", "cpu"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == len(pictures)
    for line, name, entry in zip(lines, names, pictures, strict=True):
        assert line["image"] == name
        rows = line["detections"]
        assert [row["name"] for row in rows] == [COCO.names[row["label"]] for row in rows]
        boxes, theirs = torch.tensor([row["box"] for row in rows]), torch.tensor(entry["boxes"])
        scores = torch.tensor([row["score"] for row in rows])
        labels = torch.tensor([row["label"] for row in rows])
        same = (
            (labels[None] == torch.tensor(entry["labels"])[:, None])
            & (box_iou(theirs, boxes) >= 0.95)
            & ((scores[None] - torch.tensor(entry["scores"])[:, None]).abs() <= 0.01)
        )
        matched = _pairs(same)
        assert matched >= 0.98 * len(theirs)
        assert len(rows) - matched <= 0.02 * len(theirs)


def _pairs(same: Tensor) -> int:
    """How many rows can be paired with a column each, every column used once (first free one)."""
    used: set[int] = set()
    for row in same:
        free = [column for column in row.nonzero()[:, 0].tolist() if column not in used]
        used.update(free[:1])
    return len(used)


def annotations_of(ids: list[int], test_data: Path, path: Path) -> Path:
    """The part of minicoco's validation annotations about these images, in this order."""
    data = json.loads((test_data / "minicoco/annotations/instances_val.json").read_text())
    by_id = {image["id"]: image for image in data["images"]}
    data["images"] = [by_id[id_] for id_ in ids]
    data["annotations"] = [entry for entry in data["annotations"] if entry["image_id"] in ids]
    path.write_text(json.dumps(data))
    return path


def test_evaluation_of_a_checkpoint_equals_pycocotools(test_data: Path, r50: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO as Truth
    from pycocotools.cocoeval import COCOeval

    annotations = annotations_of([139, 802, 6818, 10764], test_data, tmp_path / "four.json")
    options = {
        "out": tmp_path,
        "device": "cpu",
        "data.val.annotations": annotations,
        "data.val.images": test_data / "minicoco/images",
        "data.short_side": 224,
        "data.long_side": 373,
        "data.pad": 32,
        "data.workers": 0,
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    assert main(["evaluate", str(r50), *arguments]) == 0
    # Weights by rule find nothing real: take some of what they find, moved a little, for the truth.
    rng = np.random.default_rng(0)
    found = json.loads((tmp_path / "predictions.json").read_text())[::3]
    data = json.loads(annotations.read_text())
    for k, entry in enumerate(found, start=1):
        x, y, width, height = entry.pop("bbox")
        dx, dy = rng.normal(0, 0.07, 2) * (width, height)
        entry |= {"id": k, "bbox": [x + dx, y + dy, width, height], "area": width * height}
        entry["iscrowd"] = int(k % 10 == 0)
    annotations.write_text(json.dumps(data | {"annotations": found}))
    assert main(["evaluate", str(r50), *arguments]) == 0

    truth = Truth(str(annotations))
    theirs = COCOeval(truth, truth.loadRes(str(tmp_path / "predictions.json")), "bbox")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    ours = json.loads((tmp_path / "evaluation.json").read_text())
    twelve = list(METRICS)
    assert len(twelve) == len(theirs.stats) == 12
    assert [ours[key] for key in twelve] == pytest.approx(list(theirs.stats), abs=1e-6)
    assert all(0.05 < ours[key] < 0.95 for key in twelve), "figures that say something"


def test_five_training_steps_are_mmdetections(test_data: Path, r50: Path, tmp_path: Path) -> None:
    reference = json.loads((ORACLE / "training_r50.json").read_text())
    order = list(dict.fromkeys(id_ for step in reference["steps"] for id_ in step["images"]))
    annotations = annotations_of(order, test_data, tmp_path / "six.json")
    settings = {
        "init": r50,
        "out": tmp_path / "run",
        "device": "cpu",
        "data.root": test_data / "minicoco",
        "data.train.annotations": annotations,
        "data.train.images": "images",
        "data.shapes": "null",
        "data.shuffle": "false",
        "data.flip": 0,
        "data.short_side": 400,
        "data.long_side": 667,
        "data.pad": 32,
        "data.workers": 0,
        "optim.lr": reference["lr"],
        "optim.scale_lr": "false",
        "optim.warmup_steps": 0,
        "train.max_steps": 5,
        "train.evaluate_every": 0,
        "log.every": 1,
    }
    options = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    assert main(["train", "fsaf_r50_fpn_1x_coco", *options]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    assert len(lines) == len(reference["steps"]) == 5
    keys = {"loss_bbox": "loss_box", "num_pos_per_image": "num_pos"}
    for line, step in zip(lines, reference["steps"], strict=True):
        for key in ("loss_cls", "loss_bbox", "num_pos_per_image", "pos_recall", "grad_norm"):
            tolerance = 1e-3 if line["step"] == 1 else 2e-2
            assert line[keys.get(key, key)] == pytest.approx(step[key], rel=tolerance, abs=1e-6), (
                line["step"],
                key,
            )


RECIPES = ["fsaf_r50_fpn_1x_coco", "fsaf_r101_fpn_1x_coco", "fsaf_x101_64x4d_fpn_1x_coco"]


@pytest.mark.parametrize("name", [*RECIPES, "fsaf_r50_fpn_1x_coco_paper"])
def test_recipes_are_the_published_ones(name: str) -> None:
    config = load_recipe(name)
    assert (config.optim.lr, config.optim.base_batch, config.optim.scale_lr) == (0.01, 16, True)
    assert (config.optim.milestones, config.train.epochs, config.optim.clip_norm) == ([8, 11], 12, 10)
    assert (config.data.short_side, config.data.long_side, config.data.flip) == (800, 1333, 0.5)
    assert config.objective.neg_scale == (0.5 if name.endswith("paper") else 0.2)
    with torch.device("meta"):
        model = FSAF(config.model, 80)
    # R-50's weights are MMDetection's; the others differ by torchvision's ResNet-101 (44.55 M) and
    # ResNeXt-101-64x4d (83.46 M) instead of ResNet-50 (25.56 M), whose classifiers are of equal size.
    kind = next(key for key in ("r50", "r101", "x101") if f"_{key}_" in name)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(
        36.41 + {"r50": 25.56, "r101": 44.55, "x101": 83.46}[kind] - 25.56, abs=0.02
    )


def test_every_resized_image_fits_a_shape_of_the_recipes() -> None:
    shapes = load_recipe(RECIPES[0]).data.shapes
    assert shapes is not None
    for ratio in np.geomspace(1 / 20, 20, 400):
        height, width = (int(4000 * min(1, ratio)), int(4000 * min(1, 1 / ratio)))
        size = resized_size(height, width, 800, 1333)
        assert any(size[0] <= shape[0] and size[1] <= shape[1] for shape in shapes), size
