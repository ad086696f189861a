"""Small files that would take all memory are refused before they do."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints.checkpoints import refusal, saved
from fsaf.checkpoints.format import header
from fsaf.config import Config, ModelConfig
from fsaf.data.records import Classes
from fsaf.detection import network
from fsaf.detection.network import open_checkpoint
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
    ],
)
def test_a_setting_that_would_take_all_memory_is_refused(key: str, value: object) -> None:
    section, name = key.split(".")
    with pytest.raises(UserError, match=rf"^a\.pt: .*{key}.* must be .*") as error:
        build_config({section: {name: value}}, where="a.pt")
    assert "\n" not in str(error.value)


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

    monkeypatch.setattr(network, "FSAF", build)
    with pytest.raises(UserError, match="does not fit the model"):
        open_checkpoint(path, "cpu")
    assert built == ["meta"]
