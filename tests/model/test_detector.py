"""The whole network: padding, shapes, types, and the published model's parameters."""

import doctest
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fsaf.config import ModelConfig
from fsaf.model.detector import FSAF
from fsaf.model.points import STRIDES


@pytest.fixture
def model(tiny_model_config: ModelConfig) -> FSAF:
    return FSAF(tiny_model_config, 6).eval()


MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@torch.no_grad()
def test_padding_is_zero_after_normalisation_whatever_it_held(tiny_model_config: ModelConfig) -> None:
    model = FSAF(replace(tiny_model_config, mean=MEAN, std=STD), 6).eval()
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    sizes = [(60, 97), (96, 40)]
    by_hand = torch.zeros(2, 3, 96, 128)
    for i, (height, width) in enumerate(sizes):
        for c, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
            by_hand[i, c, :height, :width] = (images[i, c, :height, :width].float() - mean) / std
    found = model(images, torch.tensor(sizes))
    expected = model.head(model.pyramid(model.backbone(by_hand)))
    for x, y in zip(found.tensors(), expected.tensors(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_an_image_does_not_see_its_neighbour_in_the_batch(model: FSAF) -> None:
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    sizes = torch.tensor([[50, 96], [64, 33]])
    both = model(images, sizes)
    alone = model(images[1:], sizes[1:])
    for x, y in zip(both.tensors(), alone.tensors(), strict=True):
        torch.testing.assert_close(x[1:], y, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_blank_row_gives_finite_outputs(model: FSAF) -> None:
    outputs = model(torch.full((1, 3, 64, 64), 255, dtype=torch.uint8), torch.tensor([[0, 0]]))
    zeros = model.head(model.pyramid(model.backbone(torch.zeros(1, 3, 64, 64))))
    for x, y in zip(outputs.tensors(), zeros.tensors(), strict=True):
        assert x.isfinite().all() and torch.equal(x, y)


@torch.no_grad()
def test_bytes_and_floats_give_the_same(model: FSAF) -> None:
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    for x, y in zip(model(images).tensors(), model(images.float()).tensors(), strict=True):
        assert torch.equal(x, y)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (96, 160), (100, 75)])
def test_shapes_of_the_outputs(model: FSAF, size: tuple[int, int]) -> None:
    outputs = model(torch.zeros(2, 3, *size))
    shapes = [tuple(-(-side // stride) for side in size) for stride in STRIDES]
    assert [tuple(x.shape) for x in outputs.free.logits] == [(2, 6, *shape) for shape in shapes]
    assert [tuple(x.shape) for x in outputs.free.distances] == [(2, 4, *shape) for shape in shapes]


@torch.no_grad()
def test_flat_keeps_the_order_of_levels_rows_and_columns(model: FSAF) -> None:
    outputs = model(torch.randint(0, 256, (2, 3, 96, 160)).float()).free
    logits_bcp, distances_b4p, points = outputs.flat()
    p = 0
    for level, stride in enumerate(STRIDES):
        height, width = outputs.logits[level].shape[-2:]
        for i in range(height):
            for j in range(width):
                assert (points.x[p], points.y[p], points.stride[p]) == (j * stride, i * stride, stride)
                assert torch.equal(logits_bcp[..., p], outputs.logits[level][..., i, j])
                assert torch.equal(distances_b4p[..., p], outputs.distances[level][..., i, j])
                p += 1
    assert p == logits_bcp.shape[2] == distances_b4p.shape[2] == len(points.x)


def test_outputs_stay_float32_under_bfloat16_and_gradients_reach_every_weight(
    tiny_model_config: ModelConfig,
) -> None:
    model = FSAF(replace(tiny_model_config, frozen_norm=False), 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # At 64 pixels P7 starts from one column, where oneDNN's bfloat16 weight gradient (PyTorch 2.15, CPU)
        # holds random memory.
        outputs = model(torch.randint(0, 256, (2, 3, 128, 160), dtype=torch.uint8))
    tensors = outputs.tensors()
    assert {x.dtype for x in tensors} == {torch.float32}
    sum(x.sum() for x in tensors).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_resnet50_has_the_published_models_tensors(oracle_folder: Path) -> None:
    published = json.loads((oracle_folder / "fsaf_r50_shapes.json").read_text())
    with torch.device("meta"):
        ours = FSAF(ModelConfig(weights="none"), 80).state_dict()
    assert len(ours) == len(published)
    assert Counter(tuple(x.shape) for x in ours.values()) == Counter(map(tuple, published.values()))


@pytest.mark.parametrize(
    ("backbone", "mean", "std"),
    [
        ("resnet50.tv_in1k", MEAN, STD),
        ("test_efficientnet", MEAN, STD),
        ("tf_efficientnet_lite0", (127.5,) * 3, (127.5,) * 3),
    ],
)
def test_normalisation_is_the_backbones_own(
    backbone: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """From timm's page of each model: 255 times (0.485, 0.456, 0.406) and so on."""
    model = FSAF(ModelConfig(backbone=backbone, channels=32), 1)
    assert torch.equal(model.mean.flatten(), torch.tensor(mean))
    assert torch.equal(model.std.flatten(), torch.tensor(std))
    assert (model.settings.mean, model.settings.std) == (mean, std)


def test_a_given_normalisation_is_taken(tiny_model_config: ModelConfig) -> None:
    model = FSAF(replace(tiny_model_config, mean=(1.0, 2.0, 3.0)), 1)
    assert model.mean.flatten().tolist() == [1, 2, 3]
    assert torch.equal(model.std.flatten(), torch.tensor(STD))


def test_normalisation_constants_are_not_in_the_state(model: FSAF) -> None:
    assert not {"mean", "std"} & set(model.state_dict())
    assert {"mean", "std"} <= dict(model.named_buffers()).keys()


def test_the_example_runs() -> None:
    tests = doctest.DocTestFinder().find(FSAF, "FSAF")
    runner = doctest.DocTestRunner()
    for test in tests:
        runner.run(test)
    assert runner.tries > 5 and runner.failures == 0


@pytest.mark.gpu
@torch.no_grad()
def test_a_gpu_gives_the_same_outputs(model: FSAF) -> None:
    images = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    sizes = torch.tensor([[96, 128], [60, 97]])
    expected = model(images, sizes)
    found = model.cuda()(images.cuda(), sizes.cuda())
    for x, y in zip(found.tensors(), expected.tensors(), strict=True):
        torch.testing.assert_close(x.cpu(), y, rtol=1e-3, atol=1e-3)
