"""Backbone: a timm model that gives C3, C4 and C5, with stages and batch norm frozen as asked."""

from difflib import get_close_matches
from typing import Any

import timm
from timm.models import is_model
from torch import Tensor, nn

from fsaf.errors import UserError

C3_C4_C5 = ((2, 3, 4), (1, 2, 3))
"""timm's indices of the features at strides 8, 16, 32: of most models, and of those that start at 4."""


def create_body(name: str, pretrained: bool = False) -> Any:
    """timm's model ``name`` (channels first), giving features at strides 8, 16, 32.

    Raises UserError where it has none.
    """
    seen = ""
    for indices in C3_C4_C5:
        try:
            body: Any = timm.create_model(
                name, pretrained=pretrained, features_only=True, out_indices=indices
            )
        except (AttributeError, IndexError, AssertionError) as error:
            seen = f"gives no feature maps ({error})"
            continue
        strides = body.feature_info.reduction()
        if tuple(strides) == (8, 16, 32):
            return body
        seen = f"has features at strides {strides}"
    raise UserError(f"model.backbone {name!r}: {seen}; take one with strides 8, 16, 32")


def _modules_up_to(body: Any, stage: int) -> list[nn.Module]:
    """Every module registered up to the end of timm's feature ``stage``."""
    if stage < 0:
        return []
    stages = body.feature_info.info
    last = stages[stage]["module"] if stage < len(stages) else ""  # those that start at stride 4 have four
    modules = list(body.named_modules())
    # Where timm takes a network apart, "stages.0" is called "stages_0".
    starts = (f"{last}.", f"{last.replace('.', '_')}.")
    inside = [i for i, (name, _) in enumerate(modules) if f"{name}.".startswith(starts)]
    if not last or not inside:
        raise UserError(
            f"model.frozen_stages = {stage}: timm does not say where the stages of this backbone end; take -1"
        )
    return [module for _, module in modules[: inside[-1] + 1]]


class Backbone(nn.Module):
    """A timm ``features_only`` model.

    frozen_stages: -1 none, 0 the stem, k also stages 1..k (timm's feature indices; of networks whose features
    start at stride 4, such as ConvNeXt, 0 is the stem and the first stage); their parameters do not train and
    their norms stay in eval mode. frozen_norm: every batch norm stays in eval mode.
    Raises UserError where timm does not know the name or the model has no features at strides 8, 16, 32.
    """

    def __init__(self, name: str, *, frozen_stages: int = -1, frozen_norm: bool = False) -> None:
        super().__init__()
        if not is_model(name):
            near = ", ".join(get_close_matches(name.split(".")[0], timm.list_models(), n=5))
            raise UserError(
                f"model.backbone {name!r}: timm has no such model{'; near: ' + near if near else ''}"
            )
        body = create_body(name)
        self.body: nn.Module = body
        self.channels: list[int] = body.feature_info.channels()
        self.frozen_norm = frozen_norm
        self._frozen = _modules_up_to(body, frozen_stages)
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
        return self.body(images)
