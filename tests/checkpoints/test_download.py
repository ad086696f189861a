"""Downloads from a server that breaks off, is silent, or sends something else."""

import hashlib
import multiprocessing
import random
from pathlib import Path

import pytest

from checkpoints.servers import Manners, serve
from fsaf.checkpoints import download as module
from fsaf.checkpoints.download import download
from fsaf.errors import CheckpointError, WriteError

CONTENT = random.Random(0).randbytes(1_000_000)
SUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE", 0.0)


def refusal(url: str, path: Path, sha256: str = SUM[:8]) -> str:
    with pytest.raises(CheckpointError) as error:
        download(url, path, sha256)
    assert not path.exists()
    return str(error.value)


def test_a_file_arrives_once(tmp_path: Path) -> None:
    manners = Manners(CONTENT)
    with serve(manners) as server:
        for _ in range(2):
            download(f"{server}/a.pth", tmp_path / "cache" / "a.pth", SUM[:8])
    assert (tmp_path / "cache" / "a.pth").read_bytes() == CONTENT
    assert manners.requests == [None]


def test_the_second_time_needs_no_server(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(CONTENT)
    download("http://127.0.0.1:1/a.pth", tmp_path / "a.pth", SUM)


def test_a_download_that_breaks_off_is_continued(tmp_path: Path) -> None:
    manners = Manners(CONTENT, breaks=[300_000, 1, 500_000])
    with serve(manners) as server:
        download(f"{server}/a.pth", tmp_path / "a.pth", SUM)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT
    assert manners.requests == [None, "bytes=300000-", "bytes=300001-", "bytes=800001-"]


def test_the_next_command_continues_what_a_killed_one_left(tmp_path: Path) -> None:
    (tmp_path / "a.pth.part").write_bytes(CONTENT[:999])
    manners = Manners(CONTENT)
    with serve(manners) as server:
        download(f"{server}/a.pth", tmp_path / "a.pth", SUM)
    assert manners.requests == ["bytes=999-"]
    assert (tmp_path / "a.pth").read_bytes() == CONTENT


def test_a_kill_between_download_and_rename_needs_no_second_download(tmp_path: Path) -> None:
    (tmp_path / "a.pth.part").write_bytes(CONTENT)
    with serve(Manners(CONTENT)) as server:
        download(f"{server}/a.pth", tmp_path / "a.pth", SUM)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_the_whole_file_again(tmp_path: Path) -> None:
    manners = Manners(CONTENT, breaks=[400_000], ranges=False)
    with serve(manners) as server:
        download(f"{server}/a.pth", tmp_path / "a.pth", SUM)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT


def test_leftovers_of_another_file_do_not_stay(tmp_path: Path) -> None:
    (tmp_path / "a.pth.part").write_bytes(b"x" * 2_000_000)
    with serve(Manners(CONTENT)) as server:
        download(f"{server}/a.pth", tmp_path / "a.pth", SUM)
    assert (tmp_path / "a.pth").read_bytes() == CONTENT


def test_another_file_is_refused_and_removed(tmp_path: Path) -> None:
    with serve(Manners(b"<html>log in to this network</html>")) as server:
        message = refusal(f"{server}/a.pth", tmp_path / "a.pth")
    assert f"not {SUM[:8]}" in message and f"{server}/a.pth" in message
    assert not (tmp_path / "a.pth.part").exists()


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_refusal_of_the_server_is_one_message(status: int, tmp_path: Path) -> None:
    with serve(Manners(CONTENT, status=status)) as server:
        message = refusal(f"{server}/a.pth", tmp_path / "a.pth")
    assert f"answers {status}" in message


def test_a_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    with serve(Manners(CONTENT, silent=True)) as server:
        message = refusal(f"{server}/a.pth", tmp_path / "a.pth")
    assert "timed out" in message


def test_without_a_network_the_message_says_where_to_put_the_file(tmp_path: Path) -> None:
    message = refusal("http://127.0.0.1:1/a.pth", tmp_path / "a.pth")
    for part in ("http://127.0.0.1:1/a.pth", str(tmp_path / "a.pth"), SUM[:8], "refused"):
        assert part in message


def test_a_folder_that_cannot_be_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(WriteError, match=str(tmp_path / "file")):
        download("http://127.0.0.1:1/a.pth", tmp_path / "file" / "a.pth", SUM)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk without space")
def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "a.pth.part").symlink_to("/dev/full")
    with serve(Manners(CONTENT)) as server, pytest.raises(WriteError, match="No space left"):
        download(f"{server}/a.pth", tmp_path / "a.pth", SUM)


def test_processes_share_one_download(tmp_path: Path) -> None:
    manners = Manners(CONTENT)
    with serve(manners) as server, multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(download, [(f"{server}/a.pth", tmp_path / "a.pth", SUM)] * 4)
    assert manners.requests == [None]
