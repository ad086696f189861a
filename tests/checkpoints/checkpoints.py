"""Checkpoints as MMDetection writes them, of any size."""

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fsaf.checkpoints.any_format import read_checkpoint
from fsaf.errors import UserError

NAMES = ("ant", "bee", "fly")


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


def thin_state(backbone: str, classes: int, norm: Any = "none") -> dict[str, Tensor]:
    """MMDetection's names, written out here as its modules are called; one storage for all tensors."""
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
    values = torch.linspace(-1, 1, max(math.prod(shape) for shape in shapes.values()))
    return {
        name: values[: math.prod(shape)].view(shape) if shape else torch.zeros((), dtype=torch.long)
        for name, shape in shapes.items()
    }


def saved(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def refusal(path: Path) -> str:
    """Return the message with which the command line refuses a file."""
    with pytest.raises(UserError) as error:
        read_checkpoint(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message
