"""Files and folders are written whole or not at all, and only regular files are replaced."""

import os
import platform
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from fsaf.errors import WriteError
from fsaf.files import remove_leftovers, temporary_folder, whole, whole_folder, write_text


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with whole(path) as draft:
        draft.write_text("half")
        assert not path.exists() and draft.parent == path.parent
        draft.write_text("all of it")
    assert path.read_text() == "all of it"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), whole(path) as draft:
        draft.write_text("new")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_message_with_file_and_remedy(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.txt"
    path.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(
            WriteError, match=r"a\.txt: cannot be written \(File too large\); free some space"
        ):
            write_text(path, 200 * "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(WriteError, match=r"a\.json: cannot be written \(Is a directory\); write elsewhere"):
        write_text(tmp_path / "a.json", "new")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(WriteError, match=r"b\.json: cannot be written"):
        write_text(tmp_path / "file" / "b.json", "new")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.json", "file"]


def test_a_name_as_long_as_a_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 127)
    write_text(path, "text")
    assert path.read_text() == "text"
    with pytest.raises(WriteError, match="too long"):
        write_text(tmp_path / ("a" * 256), "text")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through the pipe")
    reader.join(10)
    assert received == ["through the pipe"]
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
def test_standard_output_by_its_name(tmp_path: Path) -> None:
    """Also if it is a file, to which /dev/stdout is then a link."""
    code = (
        "from pathlib import Path; from fsaf.files import write_text; write_text(Path('/dev/stdout'), 'told')"
    )
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "told"
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert piped.stdout == "told"
    write_text(Path("/dev/null"), "gone")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_appears_with_all_its_files(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "folder"
    if exists:
        folder.mkdir()
    with pytest.raises(ZeroDivisionError), whole_folder(folder) as draft:
        (draft / "a").write_text("a")
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"] * exists
    with whole_folder(folder) as draft:
        (draft / "sub").mkdir()
        (draft / "sub" / "b").write_text("b")
        (draft / "a").write_text("a")
        assert not (folder / "a").exists()
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == ["a", "sub", "sub/b"]
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("exists", [False, True])
def test_of_two_that_fill_one_folder_the_first_to_end_has_it(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "folder"
    if exists:
        folder.mkdir()
    with pytest.raises(WriteError, match="folder: another process has just written it"), ExitStack() as stack:
        slow = stack.enter_context(whole_folder(folder))
        (slow / "a").write_text("slow")
        with whole_folder(folder) as draft:
            (draft / "a").write_text("fast")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "a"]
    assert (folder / "a").read_text() == "fast"


def test_drafts_of_killed_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from fsaf.files import whole\n"
        f"with whole(Path({str(tmp_path)!r}) / 'a.txt') as draft:\n"
        "    draft.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = tmp_path.iterdir()
    elsewhere = tmp_path / left.name.replace(platform.node(), "another-machine")
    for path in (elsewhere, tmp_path / "b.tmp", tmp_path / ".mine.tmp"):
        path.write_text("stays")
    with whole(tmp_path / "c.txt") as draft:
        draft.write_text("being written")
        remove_leftovers(tmp_path)
        assert draft.exists()
    assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} == {elsewhere.name, "b.tmp", ".mine.tmp", "c.txt"}


def test_a_name_with_a_zero_byte(tmp_path: Path) -> None:
    """A recipe can hold one: ``out: "a\\0b"``."""
    with pytest.raises(WriteError, match="is not a possible name"):
        write_text(tmp_path / "a\0b", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_is_deleted_also_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    with temporary_folder("mine") as folder:
        assert folder.is_dir() and not folder.name.startswith(".")
        (folder / "file").write_text("text")
        dead = folder.with_name(folder.name.replace(f".{os.getpid()}.", f".{process.pid}."))
        dead.mkdir()
        other = tmp_path / "mine.txt.tmp"
        other.write_text("not ours")
        with temporary_folder("mine"):
            assert folder.is_dir() and not dead.exists()
    assert list(tmp_path.iterdir()) == [other]
