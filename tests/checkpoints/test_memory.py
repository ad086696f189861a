"""Small files that would take all memory are refused before they do."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.checkpoints import refusal, saved
from fsaf.checkpoints import weights
from fsaf.checkpoints.format import header
from fsaf.config import Config, DataConfig, ModelConfig, PredictConfig
from fsaf.data.records import Classes
from fsaf.detection.torch_network import open_checkpoint
from fsaf.detection.views import plan_views
from fsaf.errors import UserError
from fsaf.model.detector import FSAF
from fsaf.recipe import build_config


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_view_of_one_number_is_no_tensor_of_a_billion(tmp_path: Path, form: str) -> None:
    huge = torch.zeros(1).expand(10**9, 256, 3, 3)
    content = {"state_dict": {"bbox_head.retina_cls.weight": huge}}
    path = saved(tmp_path / "a.pth", content, _use_new_zipfile_serialization=form == "zip")
    assert path.stat().st_size < 10_000
    message = refusal(path)
    assert "bbox_head.retina_cls.weight" in message and "[1000000000, 256, 3, 3]" in message


def test_overlapping_windows_are_refused_like_repeated_numbers(tmp_path: Path) -> None:
    windows = torch.zeros(2000).as_strided((1000, 1000), (1, 1))
    assert "1000, 1000" in refusal(saved(tmp_path / "a.pth", {"state_dict": {"x": windows}}))


class Zeros:
    """Pickles to a call of bytearray, which PyTorch allows."""

    def __reduce__(self) -> Any:
        return bytearray, (10**10,)


@pytest.mark.parametrize("form", ["zip", "legacy", "legacy before an archive", "plain pickle"])
def test_a_call_that_fills_the_memory_is_not_made(tmp_path: Path, form: str) -> None:
    path = tmp_path / "a.pth"
    content = {"meta": Zeros(), "state_dict": {"x": torch.zeros(3)}}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"meta": Zeros()}, protocol=2))
    else:
        saved(path, content, _use_new_zipfile_serialization=form == "zip")
    if form == "legacy before an archive":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("a", "b")
    assert path.stat().st_size < 10_000
    assert "bytearray, which is not read" in refusal(path)


def test_a_container_that_contains_itself_is_read_once(tmp_path: Path) -> None:
    content: dict[str, Any] = {"state_dict": {"x": torch.zeros(3)}}
    content["again"] = content
    assert "not an FSAF" in refusal(saved(tmp_path / "a.pth", content))


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    plain = saved(tmp_path / "plain.pth", {"state_dict": {"x": torch.zeros(10**7)}})
    path = tmp_path / "a.pth"
    with (
        zipfile.ZipFile(plain) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for record in source.infolist():
            target.writestr(record.filename, source.read(record))
    assert path.stat().st_size < 100_000
    assert "compressed archive" in refusal(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.channels", 10**6),
        ("model.convs", 10**6),
        ("data.pad", 10**9),
        ("data.long_side", 10**9),
        ("data.shapes", [[32 * 10**6, 32]]),
        ("predict.tile", 10**9),
        ("predict.candidates", 10**9),
        ("predict.max_detections", 10**9),
        ("predict.scales", [1.0] * 10**5),
        ("data.batch_size", 10**9),
        ("data.max_boxes", 10**9),
        ("data.workers", 10**9),
        ("model.mean", [float("nan"), 0.0, 0.0]),
        ("model.std", [1e-300, 1.0, 1.0]),
    ],
)
def test_a_setting_that_would_take_all_memory_is_refused(key: str, value: object) -> None:
    section, name = key.split(".")
    with pytest.raises(UserError, match=rf"^a\.pt: .*{key}.* must be .*") as error:
        build_config({section: {name: value}}, where="a.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "sides",
    [{"short_side": 32_768, "long_side": 32_768}, {"shapes": [[32_768, 32_768]]}],
)
def test_images_of_a_billion_pixels_are_refused(sides: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^a\.pt: data\..* must be .*67,108,864 pixels"):
        build_config({"data": {"long_side": 32_768, **sides}}, where="a.pt")


def test_so_are_scales_and_tiles_that_make_them(tmp_path: Path) -> None:
    """A limit of each setting does not limit what two of them ask for together."""
    data = DataConfig(short_side=4096, long_side=8192)
    with pytest.raises(UserError, match=r"predict\.scales: 8 makes images of up to 32768 x 65536"):
        plan_views((100, 100), data, PredictConfig(scales=[1.0, 8.0]))
    with pytest.raises(UserError, match=r"a picture of 9000 x 9000 into 8,946,081 tiles; at most 100,000"):
        plan_views((9000, 9000), data, PredictConfig(tile=32, tile_overlap=0.9))


@pytest.mark.parametrize("form", ["fsaf", "mmdetection"])
def test_more_classes_than_any_data_set_has_are_refused(tmp_path: Path, form: str) -> None:
    count = 200_000
    if form == "mmdetection":
        weights = torch.zeros(count, 1, 1, 1)
        content: Any = {
            "bbox_head.retina_cls.weight": weights,
            "bbox_head.retina_reg.weight": torch.zeros(4, 1, 1, 1),
        }
        content |= {
            f"backbone.layer{i}.{j}.conv2.weight": torch.zeros(64, 64, 3, 3)
            for i in range(1, 5)
            for j in range((3, 4, 6, 3)[i - 1])
        }
    else:
        content = header(Config(), Classes(names=("a",) * count, ids=tuple(range(count)))) | {"model": {}}
    assert "has 200,000 classes" in refusal(saved(tmp_path / "a.pth", content))


def test_a_network_that_is_not_that_of_the_weights_is_compared_without_memory(
    tmp_path: Path, tiny_model_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = FSAF(tiny_model_config, 2).state_dict()
    content: Any = {"model": state}
    content |= header(Config(model=tiny_model_config), Classes(names=("a", "b"), ids=(1, 2)))
    content["config"]["model"]["channels"] = 4096
    path = tmp_path / "a.pt"
    torch.save(content, path)
    built: list[str] = []

    def build(config: ModelConfig, classes: int) -> FSAF:
        built.append(str(torch.get_default_device()))
        return FSAF(config, classes)

    monkeypatch.setattr(weights, "FSAF", build)
    with pytest.raises(UserError, match="does not fit the model"):
        open_checkpoint(path, "cpu")
    assert built == ["meta"]
