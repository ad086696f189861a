"""The record of commands in a run folder."""

from pathlib import Path

import pytest
import torch

import fsaf
from fsaf.errors import UserError
from fsaf.run_folder.commands import note_command, read_commands


def test_commands_are_kept_in_order(tmp_path: Path) -> None:
    for command in ("fsaf train lite0 --out 'my runs/a'", "fsaf evaluate x.pt"):
        note_command(tmp_path / "run", torch.device("cpu"), command)
    notes: list[str] = []
    first, second = read_commands(tmp_path / "run", notes)
    assert (first["command"], second["command"]) == (
        "fsaf train lite0 --out 'my runs/a'",
        "fsaf evaluate x.pt",
    )
    assert first["versions"]["fsaf"] == fsaf.__version__ and first["device"].startswith("cpu (")
    assert notes == []


def test_broken_lines_are_told(tmp_path: Path) -> None:
    for number, text in ((0, ""), (1, "{\n\n"), (4, '[1]\nnull\n{"time": 1}\n{"versions": 3}')):
        (tmp_path / "commands.jsonl").write_text(text)
        notes: list[str] = []
        assert read_commands(tmp_path, notes) == []
        assert [f"{number} line" in note for note in notes] == [True] * bool(number)
    assert read_commands(tmp_path / "nowhere", notes := []) == [] == notes


def test_a_line_cut_short_does_not_take_the_next_with_it(tmp_path: Path) -> None:
    note_command(tmp_path, torch.device("cpu"), "fsaf train lite0")
    path = tmp_path / "commands.jsonl"
    path.write_text(path.read_text()[:-9])  # cut by a full disk or a loss of power
    note_command(tmp_path, torch.device("cpu"), "fsaf train lite0")
    notes: list[str] = []
    assert len(read_commands(tmp_path, notes)) == 1 and "1 line could not be read" in notes[0]


def test_a_record_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "commands.jsonl").mkdir()
    with pytest.raises(UserError, match=r"commands\.jsonl: cannot be written"):
        note_command(tmp_path, torch.device("cpu"), "fsaf train lite0")
