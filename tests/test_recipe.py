"""Recipes: YAML and command line become one checked config; every mistake gets a message."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from fsaf.config import Config, to_dict
from fsaf.data.shapes import resized_size
from fsaf.errors import UserError
from fsaf.keys import recipe_keys
from fsaf.model.detector import FSAF
from fsaf.recipe import build_config, config_parser, find_recipe, load_recipe

SHIPPED = [
    "ab_fsaf_r50_fpn_1x_coco",
    "bccd_lite0",
    "digits_lite0",
    "fsaf_r50_fpn_1x_coco",
    "fsaf_r50_fpn_1x_coco_by_size",
    "fsaf_r50_fpn_1x_coco_paper",
    "fsaf_r50_own",
    "fsaf_r101_fpn_1x_coco",
    "fsaf_x101_64x4d_fpn_1x_coco",
    "lite0",
    "medium",
    "small",
    "tiny",
    "retinanet_r50_fpn_1x_coco",
]

PUBLISHED = ["fsaf_r50_fpn_1x_coco", "fsaf_r101_fpn_1x_coco", "fsaf_x101_64x4d_fpn_1x_coco"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_load_by_name_and_by_path(name: str) -> None:
    config = load_recipe(name)
    assert config.out == str(Path("runs") / name)
    assert to_dict(load_recipe(str(find_recipe(name)))) == to_dict(config)


def test_every_file_that_ships_is_known_here() -> None:
    assert sorted(path.stem for path in find_recipe("bccd_lite0").parent.glob("*.yaml")) == sorted(SHIPPED)


def test_the_published_recipe() -> None:
    config = load_recipe("fsaf_r50_fpn_1x_coco")
    assert (config.model.channels, config.model.convs, config.model.norm) == (256, 4, "none")
    assert (config.model.frozen_stages, config.model.frozen_norm) == (1, True)
    assert (config.optim.name, config.optim.lr, config.optim.base_batch) == ("sgd", 0.01, 16)
    assert (config.optim.weight_decay, config.optim.clip_norm, config.optim.milestones) == (1e-4, 10, [8, 11])
    assert (config.data.short_side, config.data.long_side, config.data.flip) == (800, 1333, 0.5)
    assert config.train.epochs == 12 and not config.data.keep_empty and config.data.min_size == 32
    assert load_recipe("fsaf_r101_fpn_1x_coco").model.backbone.startswith("resnet101")
    assert load_recipe("fsaf_x101_64x4d_fpn_1x_coco").model.backbone.startswith("resnext101_64x4d")
    assert load_recipe("fsaf_r50_fpn_1x_coco_paper").objective.neg_scale == 0.5


def test_the_recipe_to_fine_tune_has_network_and_objective_of_the_published_one() -> None:
    own, published = load_recipe("fsaf_r50_own"), load_recipe("fsaf_r50_fpn_1x_coco")
    assert own.init == "fsaf_r50_coco"
    for section in ("model", "objective", "predict"):
        assert getattr(own, section) == getattr(published, section)
    assert own.optim.lr < published.optim.lr and own.optim.scale_lr and own.optim.base_batch == 16


def test_the_four_rows_of_the_papers_first_table() -> None:
    """Anchors alone; the anchor-free branch with levels by size, and online; both together."""
    rows = [
        ("retinanet_r50_fpn_1x_coco", ["anchor_based"], "online"),
        ("fsaf_r50_fpn_1x_coco_by_size", ["anchor_free"], "size"),
        ("fsaf_r50_fpn_1x_coco_paper", ["anchor_free"], "online"),
        ("ab_fsaf_r50_fpn_1x_coco", ["anchor_free", "anchor_based"], "online"),
    ]
    for name, branches, choice in rows:
        config = load_recipe(name)
        assert (config.model.branches, config.objective.level_choice) == (branches, choice)
        assert config.objective.anchor_free_weight == 0.5
        if "anchor_free" in branches:
            assert (config.objective.pos_scale, config.objective.neg_scale) == (0.2, 0.5)
        same = to_dict(load_recipe("fsaf_r50_fpn_1x_coco"))
        assert {k: to_dict(config)[k] for k in ("data", "optim", "predict")} == {
            k: same[k] for k in ("data", "optim", "predict")
        }


def test_overrides_of_every_kind() -> None:
    config = load_recipe(
        "bccd_lite0",
        [
            "--out=here",
            "--resume", "true",
            "--train.loss_scale", "32",
            "--train.precision=fp16",
            "--train.max_steps", "7",
            "--data.shapes", "[[64, 96], [96, 64]]",
            "--data.train.annotations", "mine.json",
            "--data.shuffle=false",
            "--optim.milestones", "[1, 2]",
            "--model.mean", "[1.5, 2, 3]",
            "--data.pad", "32",
        ],
    )  # fmt: skip
    assert (config.out, config.resume) == ("here", True)
    assert (config.train.loss_scale, config.train.precision, config.train.max_steps) == (32.0, "fp16", 7)
    assert config.data.shapes == [(64, 96), (96, 64)]
    assert config.data.train.annotations == "mine.json" and config.data.train.images == "images"
    assert config.data.shuffle is False and config.data.pad == 32
    assert config.optim.milestones == [1, 2] and config.model.mean == (1.5, 2.0, 3.0)
    untouched = load_recipe("bccd_lite0")
    assert config.optim.lr == untouched.optim.lr and config.model.channels == untouched.model.channels
    assert load_recipe("bccd_lite0", ["--train.loss_scale", "dynamic"]).train.loss_scale == "dynamic"


def test_a_key_of_a_file_keeps_the_others_of_its_group(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data:\n  val: {images: pictures}\n")
    config = load_recipe(str(path), ["--data.val.annotations=a.json"])
    assert (config.data.val.images, config.data.val.annotations) == ("pictures", "a.json")
    assert config.data.batch_size == Config().data.batch_size


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing\n")
    config = load_recipe(str(path))
    assert config.out == str(Path("runs") / "empty")
    config.out = None
    assert to_dict(config) == to_dict(Config())


def test_a_config_survives_yaml_and_back(tmp_path: Path) -> None:
    config = load_recipe("digits_lite0", ["--train.loss_scale=32", "--data.shapes=[[64, 96]]"])
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(to_dict(config)))
    assert to_dict(load_recipe(str(path))) == to_dict(config)


BAD_FILES: list[tuple[str, Any]] = [
    ("optim: {lr: fast}", ["optim.lr", "fast"]),
    ("optim: {lr: -1}", ["optim.lr", "-1"]),
    ("optim: {name: rmsprop}", ["optim.name", "rmsprop"]),
    ("optim: {speed: 1}", ["unknown key optim.speed", "lr"]),
    ("speed: 1", ["unknown key speed", "optim"]),
    ("optim: {weight_deacy: 0}", ["unknown key optim.weight_deacy", "did you mean 'optim.weight_decay'?"]),
    ("epochs: 3", ["unknown key epochs", "did you mean 'train.epochs'?"]),
    ("train: {lr: 3}", ["unknown key train.lr", "did you mean 'optim.lr'?"]),
    ("optim: {schedule: onecycle}", ["optim.schedule", "'onecycle'", "did you mean 'one_cycle'?"]),
    ("train: {loss_scale: dynamik}", ["train.loss_scale", "did you mean 'dynamic'?"]),
    ("data: {train: {folder: x}}", ["unknown key data.train.folder", "images"]),
    ("data: 3", ["data", "must be keys with values", "3"]),
    ("data: {train: a.json}", ["data.train", "must be keys with values", "a.json"]),
    ("model:", ["model", "must be keys with values", "None"]),
    ("- a\n- b", ["the recipe must be keys with values"]),
    ("just text", ["the recipe must be keys with values", "just text"]),
    ("data: {shapes: [[64, 100]]}", ["data.shapes", "100"]),
    ("data: {shapes: 64}", ["data.shapes", "64"]),
    ("train: {epochs: 2.5}", ["train.epochs", "2.5"]),
    ("train: {loss_scale: big}", ["train.loss_scale", "big"]),
    ("model: {mean: [1, 2]}", ["model.mean"]),
    ("model: {norm: group, channels: 32}", ["model.channels", "32", "at least 64"]),
    ("data: {batch_size: [1]}", ["data.batch_size"]),
    ("a: [1, 2", ["not readable as YAML"]),
    ("a: !!python/object/apply:os.getcwd []", ["not readable as YAML"]),
    ("train: {epochs: 2}\nmodel: {convs: 1}\ntrain: {seed: 1}", ["train in line 1 and again in line 3"]),
    ("train:\n  epochs: 2\n  epochs: 3", ["epochs in line 2 and again in line 3"]),
    ("train: {epochs: 2, epochs: 3}", ["epochs twice in line 1"]),
]


@pytest.mark.parametrize(("text", "told"), BAD_FILES, ids=[text for text, _ in BAD_FILES])
def test_a_mistake_in_a_file_names_file_key_and_value(tmp_path: Path, text: str, told: list[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_recipe(str(path))
    for part in [str(path), *told]:
        assert part in str(error.value)


def test_keys_taken_over_from_another_place_are_not_given_twice(tmp_path: Path) -> None:
    """YAML's ``<<`` merges defaults from another place, which may merge others in turn."""
    path = tmp_path / "mine.yaml"
    train = "train: &train {<<: &base {annotations: a.json, images: b}, images: c}"
    path.write_text(f"data: {{{train}, val: {{<<: *train}}}}\nspare: {{<<: *train}}\n")
    with pytest.raises(UserError, match="unknown key spare"):  # YAML builds shallower places first
        load_recipe(str(path))
    path.write_text(f"data: {{{train}, val: {{<<: *train}}}}\n")
    data = load_recipe(str(path)).data
    assert (data.train.annotations, data.train.images) == ("a.json", "c")
    assert (data.val.annotations, data.val.images) == ("a.json", "c")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match=r"mine\.yaml: not readable as YAML"):
        load_recipe(str(path))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--optim.lr", "fast"], ["optim.lr", "fast"]),
        (["--optim.lr=-1"], ["optim.lr", "-1"]),
        (["--optim.speed", "1"], ["--optim.speed"]),
        (["--speed=1"], ["--speed=1"]),
        (["--train.epochs"], ["train.epochs"]),
        (["--train.precision", "fp8"], ["train.precision", "fp8"]),
        (["--data.short_side", "20"], ["data.short_side", "20"]),
        (["loose"], ["loose"]),
        (["--config", "x.yaml"], ["--config"]),
        (["--optim.l", "1"], ["--optim.l"]),
    ],
)
def test_a_mistake_on_the_command_line_names_option_and_value(
    options: list[str], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError) as error:
        load_recipe("bccd_lite0", options)
    for part in told:
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert capsys.readouterr() == ("", "")


def test_a_recipe_that_does_not_exist_lists_those_that_ship() -> None:
    with pytest.raises(UserError) as error:
        load_recipe("nothing.yaml")
    assert "nothing.yaml" in str(error.value)
    assert all(name in str(error.value) for name in SHIPPED)


def test_build_config_names_where_its_values_came_from() -> None:
    with pytest.raises(UserError, match=r"^model\.pt: unknown key colour"):
        build_config({"colour": 1}, where="model.pt")


def test_the_parser_knows_every_key() -> None:
    assert {f"--{key.name}" for key in recipe_keys()} <= set(config_parser()._option_string_actions)


@pytest.mark.parametrize("name", [*PUBLISHED, "fsaf_r50_fpn_1x_coco_paper"])
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


@pytest.mark.parametrize("name", SHIPPED)
def test_another_backbone_brings_its_own_normalisation(name: str) -> None:
    own = load_recipe(name).model
    assert own.mean is not None and own.std is not None
    with torch.device("meta"):
        assert FSAF(replace(own, mean=None, std=None), 1).settings == own
    other = load_recipe(name, ["--model.backbone", "convnext_tiny"]).model
    assert (other.mean, other.std) == (None, None)
    given = load_recipe(
        name, ["--model.std", "[4, 5, 6]", "--model.backbone=vgg11", "--model.mean=[1,2,3]"]
    ).model
    assert (given.backbone, given.mean, given.std) == ("vgg11", (1, 2, 3), (4, 5, 6))
    assert load_recipe(name, ["--model.weights", "none"]).model == replace(own, weights="none")


def test_every_resized_image_fits_a_shape_of_the_recipes() -> None:
    shapes = load_recipe(PUBLISHED[0]).data.shapes
    assert shapes is not None
    for ratio in np.geomspace(1 / 20, 20, 400):
        height, width = (int(4000 * min(1, ratio)), int(4000 * min(1, 1 / ratio)))
        size = resized_size(height, width, 800, 1333)
        assert any(size[0] <= shape[0] and size[1] <= shape[1] for shape in shapes), size


def test_an_old_name_of_a_key_is_taken_in_recipes_and_options(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("train: {cuda_graphs: true}\n")
    assert load_recipe(str(tmp_path / "old.yaml")).train.graphs
    assert build_config({}, ["--train.cuda_graphs=true"], where="here").train.graphs
    assert build_config({}, ["--train.cuda_graphs", "true"], where="here").train.graphs
    with pytest.raises(UserError, match=r"here: has train.graphs and also its old name train.cuda_graphs"):
        build_config({"train": {"cuda_graphs": True, "graphs": True}}, where="here")


ODD = [
    "data: {batch_size: 2024-13-45}",  # no month has that number
    "data: {batch_size: 2024-01-01}",
    "data: {batch_size: 2024-01-01 10:00:00 +99:99}",
    "data: {batch_size: 190:20:30}",
    "data: {batch_size: 1e400}",
    "data: {batch_size: .nan}",
    "data: {batch_size: .inf}",
    "data: {batch_size: !!binary aGk=}",
    "data: {batch_size: !!binary x}",
    "data: {batch_size: !!set {a, b}}",
    "data: {batch_size: !!timestamp 7}",
    "data: {batch_size: !!float x}",
    "data: {shuffle: !!bool x}",
    "data: {batch_size: !!int x}",
    "data: {batch_size: !!python/name:os.system }",
    "data: {batch_size: *nowhere}",
    "data: {batch_size: &a [*a]}",
    "data: {batch_size: null}",
    "data: {batch_size: {}}",
    "data: &a {batch_size: 2, train: *a}",
    "data: {? [a, b] : 2}",
    "data: {1: 2}",
    "data: {null: 2}",
    "data: {batch_size: 2, <<: 7}",
    "data: [batch_size, 2]",
    "optim: {lr: " + "1" * 400 + "}",
    "optim: {lr: " + "1" * 5000 + "}",
    "model: {backbone: null}",
    "model: {backbone: ''}",
    "model: {weights: 2024-01-01}",
    "model: {mean: [.nan, 0, 0]}",
    "model: {mean: [[1], [2], [3]]}",
    "predict: {scales: " + str([1.0] * 2000) + "}",
    "out: [a]",
    "? ",
    "--- a\n--- b",
    "data: " + "[" * 5000 + "]" * 5000,
    "data: " + "{a: " * 5000 + "}" * 5000,
    "\x00",
    "\x1b[2J: 1",
    "a: &a [x, x, x, x, x, x, x, x]\n"
    + "".join(f"{c}: &{c} [{', '.join([f'*{chr(ord(c) - 1)}'] * 8)}]\n" for c in "bcdefghijkl")
    + "data: {batch_size: *l}",  # a billion of them
]
"""YAML that is none, or whose values no key has."""


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_odd_yaml_is_refused_in_one_message(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        FSAF(load_recipe(str(path)).model, 1)
    assert len(str(error.value)) < 3000


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"out: \xff\xfe")
    with pytest.raises(UserError, match=r"mine\.yaml: not readable as YAML"):
        load_recipe(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    "value", ["!!timestamp 7", "!!bool x", "2024-13-45", "&a [*a]", "[" * 3000, "1" * 5000]
)
@pytest.mark.parametrize("key", ["optim.lr", "data.shapes", "train.compile"])
def test_odd_values_on_the_command_line(key: str, value: str) -> None:
    with pytest.raises(UserError) as error:
        load_recipe("lite0", [f"--{key}={value}"])
    assert "\n" not in str(error.value) and key in str(error.value)
