"""Reading MMDetection's checkpoints."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoints.checkpoints import NAMES, refusal, rule, saved, thin_state
from fsaf.checkpoints.coco_classes import COCO
from fsaf.checkpoints.mmdetection import from_mmdetection
from fsaf.checkpoints.pickles import load_plain
from fsaf.config import ModelConfig
from fsaf.data.records import Classes
from fsaf.model.detector import FSAF


@pytest.mark.slow
def test_every_tensor_of_the_r50_checkpoint_has_its_place(r50: Path, shapes: dict[str, list[int]]) -> None:
    state, config, classes = from_mmdetection(load_plain(r50), str(r50))
    model = FSAF(config, len(classes))
    model.load_state_dict(state)
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    assert config == ModelConfig(weights="none", mean=mean, std=std)
    assert classes == COCO
    # The same values in the same places, by the names of MMDetection's modules.
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
    _, config, found = from_mmdetection(load_plain(path), str(path))
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
    assert from_mmdetection(load_plain(path), str(path))[2] == Classes(names=names, ids=(1, 2, 3))


def test_names_for_another_number_of_classes(tmp_path: Path, small: dict[str, Tensor]) -> None:
    path = saved(tmp_path / "a.pth", {"meta": {"CLASSES": ("ant", "bee")}, "state_dict": small})
    assert "names 2 classes, bbox_head.retina_cls.weight has 3" in refusal(path)


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": state}], ids=["bare", "wrapped"])
@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_bare_prefixed_and_averaged_state(
    tmp_path: Path, small: dict[str, Tensor], wrap: Any, options: dict[str, bool]
) -> None:
    state = OrderedDict((f"module.{name}", tensor) for name, tensor in small.items())
    state["ema_bbox_head_retina_cls_bias"] = torch.ones(3)
    path = saved(tmp_path / "a.pth", wrap(state), **options)
    found, config, _ = from_mmdetection(load_plain(path), str(path))
    FSAF(config, 3).load_state_dict(found)
    assert torch.equal(found["head.classes.bias"], small["bbox_head.retina_cls.bias"])


def test_mean_and_deviation_come_from_the_stored_config(tmp_path: Path, small: dict[str, Tensor]) -> None:
    text = "img_norm_cfg = dict(\n    mean=[1.5, 2, 3], std=[4.0, 5.0, 6.0], to_rgb=True)"
    for key, config in (("config", text), ("cfg", text.replace("img_norm_cfg", "data_preprocessor"))):
        path = saved(tmp_path / "a.pth", {"meta": {key: config}, "state_dict": small})
        model = from_mmdetection(load_plain(path), str(path))[1]
        assert (model.mean, model.std) == ((1.5, 2.0, 3.0), (4.0, 5.0, 6.0))
    for sign in ("style='caffe'", "bgr_to_rgb=False"):
        path = saved(tmp_path / "b.pth", {"meta": {"cfg": f"dict({sign})"}, "state_dict": small})
        assert "Caffe" in refusal(path)
