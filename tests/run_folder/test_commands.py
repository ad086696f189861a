"""The record of commands in a run folder."""

import shlex
from pathlib import Path

import pytest
import torch

import fsaf
from fsaf.errors import UserError
from fsaf.run_folder.commands import note_command, read_commands


def test_every_command_is_kept_in_order_and_can_be_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ["train", "lite0", "--out", "my runs/a"], ["evaluate", "x.pt"]
    for program, words in (("/usr/bin/fsaf", first), ("/lib/fsaf/__main__.py", second)):
        monkeypatch.setattr("sys.argv", [program, *words])
        note_command(tmp_path / "run", torch.device("cpu"))
    notes: list[str] = []
    commands = read_commands(tmp_path / "run", notes)
    assert [shlex.split(each["command"]) for each in commands] == [["fsaf", *first], ["fsaf", *second]]
    assert commands[0]["versions"]["fsaf"] == fsaf.__version__ and commands[0]["device"].startswith("cpu (")
    assert notes == []


def test_broken_lines_are_told(tmp_path: Path) -> None:
    for number, text in ((0, ""), (1, "{\n\n"), (4, '[1]\nnull\n{"time": 1}\n{"versions": 3}')):
        (tmp_path / "commands.jsonl").write_text(text)
        notes: list[str] = []
        assert read_commands(tmp_path, notes) == []
        assert [f"{number} line" in note for note in notes] == [True] * bool(number)
    assert read_commands(tmp_path / "nowhere", notes := []) == [] == notes


def test_a_line_cut_short_does_not_take_the_next_with_it(tmp_path: Path) -> None:
    note_command(tmp_path, torch.device("cpu"))
    path = tmp_path / "commands.jsonl"
    path.write_text(path.read_text()[:-9])  # by a full disk, or a loss of power
    note_command(tmp_path, torch.device("cpu"))
    notes: list[str] = []
    assert len(read_commands(tmp_path, notes)) == 1 and "1 line could not be read" in notes[0]


def test_a_record_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "commands.jsonl").mkdir()
    with pytest.raises(UserError, match=r"commands\.jsonl: cannot be written"):
        note_command(tmp_path, torch.device("cpu"))
