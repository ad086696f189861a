"""Detectors by name, from a server on this machine that holds a checkpoint of MMDetection's layout."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fsaf
from checkpoints.servers import Manners, serve
from fsaf.checkpoints import published
from fsaf.checkpoints.any_format import read_checkpoint
from fsaf.checkpoints.published import PUBLISHED, cache
from fsaf.cli import main
from fsaf.errors import CheckpointError
from fsaf.model.detector import FSAF
from fsaf.recipe import load_recipe

NAME = "fsaf_r50_coco"


@pytest.fixture
def server(small: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manners]:
    """The published name stands for a small checkpoint on this machine."""
    torch.save({"meta": {"CLASSES": ["ant", "bee", "fly"]}, "state_dict": small}, tmp_path / "a.pth")
    manners = Manners((tmp_path / "a.pth").read_bytes())
    with serve(manners) as address:
        monkeypatch.setattr(published, "SERVER", address)
        monkeypatch.setenv("FSAF_HOME", str(tmp_path / "home"))
        known = replace(PUBLISHED[NAME], sha256=hashlib.sha256(manners.content).hexdigest()[:8])
        monkeypatch.setitem(PUBLISHED, NAME, known)
        yield manners


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_and_sum_are_those_of_the_network_and_the_file_name(name: str) -> None:
    one = PUBLISHED[name]
    with torch.device("meta"):
        network = FSAF(load_recipe(one.recipe).model, 80)
    assert one.parameters == pytest.approx(sum(p.numel() for p in network.parameters()) / 1e6, abs=0.05)
    assert one.file.endswith(f"{one.sha256}.pth")


def test_a_name_is_downloaded_once_and_opened(server: Manners, tmp_path: Path) -> None:
    for _ in range(2):
        assert read_checkpoint(Path(NAME)).classes.names == ("ant", "bee", "fly")
    assert len(server.requests) == 1
    assert PUBLISHED[NAME].path.parent == tmp_path / "home"


def test_a_mistyped_name_gets_the_right_one() -> None:
    with pytest.raises(CheckpointError, match="coko: no such checkpoint; did you mean 'fsaf_r50_coco'"):
        fsaf.load("fsaf_r50_coko")


def test_load_takes_a_name(server: Manners) -> None:
    assert fsaf.load(NAME, "cpu").classes.names == ("ant", "bee", "fly")


def test_a_file_of_that_name_goes_first(
    server: Manners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NAME).write_bytes(b"mine")
    with pytest.raises(CheckpointError, match=NAME):
        read_checkpoint(Path(NAME))
    assert server.requests == []


def test_without_fsaf_home_the_cache_is_torch_hubs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FSAF_HOME", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert cache() == tmp_path / "hub" / "checkpoints"


def test_models_lists_names_and_what_is_on_this_machine(
    server: Manners, capsys: pytest.CaptureFixture[str]
) -> None:
    def cached() -> str:
        assert main(["models"]) == 0
        return next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{NAME} "))

    assert cached().split() == [NAME, "37.4", "36.4", "M", "146", "MB", "Apache-2.0", "no"]
    read_checkpoint(Path(NAME))
    assert cached().endswith("yes")


@pytest.mark.slow
def test_convert_takes_a_name(server: Manners, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", NAME, str(tmp_path / "mine.pt")]) == 0
    assert fsaf.load(tmp_path / "mine.pt", "cpu").classes.names == ("ant", "bee", "fly")


def test_a_wrong_file_is_one_message(
    server: Manners, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.content = b"another file"
    assert main(["convert", NAME, str(tmp_path / "mine.pt")]) == 2
    assert capsys.readouterr().err.count("\n") == 2  # that it downloads; the message
    assert not (tmp_path / "mine.pt").exists()
