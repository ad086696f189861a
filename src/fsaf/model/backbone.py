"""Backbone: a timm model that returns C3, C4 and C5, with stages and batch norm frozen as asked."""

import functools
from difflib import get_close_matches
from typing import Any, NamedTuple

import timm
import torch
from timm.models import is_model
from torch import Tensor, nn

from fsaf.errors import RecipeError, UserError

STRIDES = (8, 16, 32)
"""Pixels between neighbouring locations of C3, C4 and C5."""
TRIED_SIZES = ((256, 320), (800, 1344))
"""(height, width) of the batches that a backbone is tried on: one of the digits, one of COCO."""
SUGGESTION = "take, for example, resnet50, convnext_tiny or efficientnet_b0"


class Features(NamedTuple):
    """The feature maps C3, C4 and C5 of a timm model."""

    options: dict[str, Any]
    """Arguments of ``timm.create_model``."""
    channels: list[int]
    """Channels of C3, C4 and C5."""
    channels_last: bool
    """True if the model returns (B, H, W, C) instead of (B, C, H, W)."""
    mean: tuple[float, float, float]
    """Mean of R, G, B (0..255) that the model was trained with."""
    std: tuple[float, float, float]
    """Standard deviation of R, G, B (0..255)."""


@functools.cache
def find_features(name: str) -> Features:
    """Find the feature maps with strides 8, 16 and 32 of timm's model ``name``.

    Builds the model on the ``meta`` device and runs it there on a batch of each of ``TRIED_SIZES``. That
    takes most of the time of building a network, the first time, and neither memory nor random numbers.
    Raises UserError if timm does not know the model, if it lacks one of the strides, or if it fails.
    """
    if not is_model(name):
        near = ", ".join(get_close_matches(name.split(".")[0], timm.list_models(), n=5))
        raise RecipeError(
            f"model.backbone {name!r}: timm has no such model{'; near: ' + near if near else ''}"
        )
    plain, _, tag = name.partition(".")
    known = [each.partition(".")[2] for each in timm.list_pretrained(plain + ".*")]
    if tag and tag not in known:
        near = ", ".join(f"{plain}.{each}" for each in get_close_matches(tag, known, n=3, cutoff=0.3))
        raise _refusal(name, f"timm has no weights {tag!r} of {plain}{'; near: ' + near if near else ''}")
    try:
        with torch.device("meta"):
            body: Any = timm.create_model(name, features_only=True, out_indices=(0,))
    except Exception as error:  # of any kind, from the code of some hundred models; so below
        raise _refusal(name, f"timm returns no feature maps of it ({_summary(error)})") from error
    last = {entry["reduction"]: index for index, entry in enumerate(body.feature_info.info)}
    if not last.keys() >= set(STRIDES):
        raise _refusal(name, f"has feature maps with strides {sorted(last)}, and needs 8, 16, 32")
    indices = tuple(last[stride] for stride in STRIDES)
    failures = []
    # Swin Transformers need the second option to take other images than those they were trained on.
    for options in ({}, {"strict_img_size": False}):
        try:
            return _try_model(name, {"features_only": True, "out_indices": indices, **options})
        except Exception as error:
            failures.append(error)
    sizes = " or ".join(f"{height} x {width}" for height, width in TRIED_SIZES)
    raise _refusal(name, f"fails on images of {sizes} pixels ({_summary(failures[0])})") from failures[0]


def _try_model(name: str, options: dict[str, Any]) -> Features:
    """Run the model once in training and once in evaluation mode, and compare the shapes of its features."""
    with torch.device("meta"):
        body: Any = timm.create_model(name, **options)
    channels = body.feature_info.channels()
    for (height, width), training in zip(TRIED_SIZES, (True, False), strict=True):
        with torch.no_grad():
            maps = body.train(training)(torch.zeros(2, 3, height, width, device="meta"))
        found = [tuple(x.shape[1:]) for x in maps]
        channels_first = [(c, height // s, width // s) for c, s in zip(channels, STRIDES, strict=True)]
        channels_last = [(h, w, c) for c, h, w in channels_first]
        if found not in (channels_first, channels_last):
            wrong = next(pair for pair in zip(found, channels_first, strict=True) if pair[0] != pair[1])
            raise ValueError("it returns a feature map {} instead of {}".format(*wrong))
    mean, std = (tuple(round(255 * x, 4) for x in body.pretrained_cfg[key]) for key in ("mean", "std"))
    return Features(options, channels, found == channels_last, mean, std)


def _refusal(name: str, reason: str) -> UserError:
    return RecipeError(f"model.backbone {name!r}: {reason}; {SUGGESTION}")


def _summary(error: Exception) -> str:
    """Return the type and the first line of ``error``, of which some have no text."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _modules_up_to(body: Any, stage: int) -> list[nn.Module]:
    """Return all modules registered up to the end of timm's feature ``stage``."""
    if stage < 0:
        return []
    stages = body.feature_info.info
    last = stages[stage]["module"] if stage < len(stages) else ""  # those that start at stride 4 have four
    modules = list(body.named_modules())
    # timm takes some networks apart ("stages.0" becomes "stages_0") and wraps others ("model.stages.0").
    starts = (f"{last}.", f"{last.replace('.', '_')}.", f"model.{last}.")
    inside = [i for i, (name, _) in enumerate(modules) if f"{name}.".startswith(starts)]
    if not last or not inside:
        raise RecipeError(
            f"model.frozen_stages = {stage}: timm does not say where the stages of this backbone end; take -1"
        )
    return [module for _, module in modules[: inside[-1] + 1]]


class Backbone(nn.Module):
    """A timm model that returns C3, C4 and C5.

    frozen_stages: -1 none, 0 the stem, k also stages 1..k, counted as timm counts its features: of networks
    whose features start at stride 4, such as ConvNeXt, 0 is the stem with the first stage. Parameters of
    frozen stages do not train, and their batch norms stay in eval mode. frozen_norm: every batch norm stays
    in eval mode.
    Raises UserError if ``find_features`` does, or if timm does not say where the frozen stages end.
    """

    def __init__(self, name: str, *, frozen_stages: int = -1, frozen_norm: bool = False) -> None:
        super().__init__()
        self.features = find_features(name)
        self.body: nn.Module = timm.create_model(name, **self.features.options)
        self.channels = self.features.channels
        self.frozen_norm = frozen_norm
        self._frozen = _modules_up_to(self.body, frozen_stages)
        for module in self._frozen:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        for module in self._frozen:
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        if self.frozen_norm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """images: (B, 3, H, W) normalised. Returns C3, C4, C5."""
        maps: list[Tensor] = self.body(images)
        return [x.permute(0, 3, 1, 2) for x in maps] if self.features.channels_last else maps
