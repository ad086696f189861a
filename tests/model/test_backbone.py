"""Features of backbones, frozen parts, and errors for models that do not fit."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from fsaf.errors import UserError
from fsaf.model.backbone import Backbone, find_features


def slow(*values: object) -> Any:
    """Return the values of a parametrized test as a slow case: building a large network takes seconds."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("convnext_tiny", [192, 384, 768]),
        slow("cspdarknet53", [256, 512, 1024]),
        slow("csatv2", [32, 72, 168]),
        slow("dla34", [128, 256, 512]),
        ("mambaout_femto", [96, 192, 288]),
        slow("swin_tiny_patch4_window7_224", [192, 384, 768]),
        slow("swinv2_tiny_window8_256", [192, 384, 768]),
        ("vgg11", [512, 512, 512]),
    ],
)
def test_features_of_the_strides_are_found_and_are_channels_first(name: str, channels: list[int]) -> None:
    with torch.device("meta"):
        backbone = Backbone(name).eval()
        features = backbone(torch.zeros(2, 3, 352, 480))
    assert backbone.channels == channels
    shapes = [(2, c, 352 // s, 480 // s) for c, s in zip(channels, (8, 16, 32), strict=True)]
    assert [tuple(x.shape) for x in features] == shapes


@pytest.mark.parametrize("name", ["test_mambaout", slow("dla34")])
def test_features_are_those_that_timm_computes(name: str) -> None:
    """timm has two independent ways to get features: ``forward_intermediates`` and ``FeatureListNet``."""
    backbone = Backbone(name).eval()
    whole = timm.create_model(name).eval()
    state = {key.replace("stages_", "stages."): value for key, value in backbone.body.state_dict().items()}
    assert not whole.load_state_dict(state, strict=False).unexpected_keys
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = whole.forward_intermediates(images, indices=3, intermediates_only=True)
        for mine, theirs in zip(backbone(images), expected, strict=True):
            torch.testing.assert_close(mine, theirs)


def test_looking_for_features_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    find_features.__wrapped__("convnext_tiny")  # not what an earlier test has found
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet50.tv_in1k", [512, 1024, 2048]),
        slow("resnet101.tv_in1k", [512, 1024, 2048]),
        slow("resnext101_64x4d.tv_in1k", [512, 1024, 2048]),
        ("tf_efficientnet_lite0", [40, 112, 320]),
    ],
)
def test_recipes_backbones_build(name: str, channels: list[int]) -> None:
    with torch.device("meta"):
        backbone = Backbone(name, frozen_stages=1, frozen_norm=True)
        features = backbone(torch.zeros(2, 3, 96, 160))
    assert backbone.channels == channels
    shapes = [(2, c, 96 // s, 160 // s) for c, s in zip(channels, (8, 16, 32), strict=True)]
    assert [tuple(x.shape) for x in features] == shapes


RESNET_PARTS = ["conv1 bn1", "layer1", "layer2", "layer3", "layer4"]


@pytest.mark.parametrize("stages", [-1, 0, 1, 2, 3, 4])
def test_frozen_stages_of_a_resnet(stages: int) -> None:
    backbone = Backbone("test_resnet", frozen_stages=stages)
    names = {name: p.requires_grad for name, p in backbone.body.named_parameters()}
    frozen = " ".join(RESNET_PARTS[: stages + 1]).split()
    assert {part.split(".")[0] for part in names} == set(" ".join(RESNET_PARTS).split())
    assert all(trains == (name.split(".")[0] not in frozen) for name, trains in names.items())


def test_more_frozen_stages_than_there_are_is_refused() -> None:
    """Networks that start at stride 4 have one stage less."""
    with pytest.raises(UserError, match=r"model\.frozen_stages = 4: .*take -1"):
        Backbone("test_convnext", frozen_stages=4)


def test_frozen_stages_of_an_efficientnet() -> None:
    backbone = Backbone("test_efficientnet", frozen_stages=1)
    frozen = {n for n, p in backbone.body.named_parameters() if not p.requires_grad}
    parts = ("conv_stem.", "bn1.", "blocks.0.", "blocks.1.")
    assert frozen == {n for n, _ in backbone.body.named_parameters() if n.startswith(parts)}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("test_convnext", ("stem_", "stages_0.", "stages_1.")),
        ("repvgg_a0", ("stem.", "stages_0.")),
        slow("swin_tiny_patch4_window7_224", ("patch_embed.", "layers_0.", "layers_1.")),
        slow("davit_tiny", ("stem.", "stages_0.", "stages_1.")),
        slow("cspnext_s", ("model.stem.", "model.stages.0.")),
    ],
)
def test_frozen_stages_of_networks_that_timm_takes_apart(name: str, parts: tuple[str, ...]) -> None:
    with torch.device("meta"):
        body = Backbone(name, frozen_stages=1).body
    frozen = {n for n, p in body.named_parameters() if not p.requires_grad}
    assert frozen and frozen == {n for n, _ in body.named_parameters() if n.startswith(parts)}


def norms(backbone: Backbone) -> dict[str, nn.Module]:
    return {n: m for n, m in backbone.body.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}


def test_norms_of_frozen_stages_stay_in_eval_mode() -> None:
    backbone = Backbone("test_resnet", frozen_stages=1)
    for mode in (False, True):
        backbone.train(mode)
        training = {name: module.training for name, module in norms(backbone).items()}
        frozen = {name for name in training if name.startswith(("conv1", "bn1", "layer1."))}
        assert frozen and set(training) - frozen
        assert all(training[name] == (mode and name not in frozen) for name in training)


def test_frozen_norm_keeps_all_statistics() -> None:
    backbone = Backbone("test_resnet", frozen_stages=-1, frozen_norm=True)
    before = {name: x.clone() for name, x in backbone.named_buffers()}
    backbone.train()
    assert backbone.training and all(p.requires_grad for p in backbone.parameters())
    backbone(torch.randn(2, 3, 64, 64))
    assert before and all(torch.equal(x, before[name]) for name, x in backbone.named_buffers())


def test_norms_that_are_not_frozen_learn_statistics() -> None:
    backbone = Backbone("test_resnet", frozen_stages=0)
    before = {name: x.clone() for name, x in backbone.named_buffers()}
    backbone(torch.randn(2, 3, 64, 64))
    unchanged = {name.split(".")[1] for name, x in backbone.named_buffers() if torch.equal(x, before[name])}
    assert unchanged == {"conv1", "bn1"}


def test_an_unknown_name_says_what_is_near() -> None:
    with pytest.raises(UserError, match=r"model\.backbone 'resnet5O'.*resnet") as error:
        Backbone("resnet5O")
    assert "resnet50" in str(error.value)


@pytest.mark.parametrize(
    ("name", "strides"),
    [("vit_tiny_patch16_224", "16"), ("levit_128", "16, 32, 64"), ("nest_tiny", "4, 8, 16")],
)
def test_a_model_without_the_strides_is_refused(name: str, strides: str) -> None:
    message = (
        rf"model\.backbone '{name}': has feature maps with strides \[{strides}\], and needs 8, 16, 32; take"
    )
    with pytest.raises(UserError, match=message):
        Backbone(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("visformer_small", r"AssertionError: Input height \(128\) doesn't match model \(112\)\."),
        slow("maxvit_tiny_tf_224", r"AssertionError: height \(64\) must be divisible by window \(7\)"),
        ("halonet26t", "AssertionError"),
        slow("coatnet_0_224", "RuntimeError: .*"),
        slow("mobilevitv2_050", r"ValueError: .*\(256, 26, 42\).*\(256, 25, 42\).*"),
    ],
)
def test_a_model_that_fails_on_images_of_other_sizes_is_refused(name: str, reason: str) -> None:
    message = (
        rf"model\.backbone '{name}': fails on images of 256 x 320 or 800 x 1344 pixels \({reason}\); take"
    )
    with pytest.raises(UserError, match=message) as error:
        Backbone(name)
    assert "strict_img_size" not in str(error.value)


def test_a_model_without_feature_maps_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.backbone 'tresnet_l': timm returns no feature maps.*; take"):
        Backbone("tresnet_l")


def test_an_unknown_tag_of_a_known_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.backbone 'resnet18.nobody': .*nobody.*; take"):
        Backbone("resnet18.nobody")


@pytest.mark.slow
def test_stages_that_cannot_be_told_apart_cannot_be_frozen() -> None:
    with torch.device("meta"):
        Backbone("hrnet_w18_small", frozen_stages=-1)
        with pytest.raises(UserError, match=r"model\.frozen_stages = 0"):
            Backbone("hrnet_w18_small", frozen_stages=0)
