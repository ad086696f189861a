"""Inputs of a command line, and their output files: folders are kept, nothing is replaced."""

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fsaf.annotation.sources import find_sources, place_results
from fsaf.errors import UserError

TREE = ["b.jpg", "a/c.PNG", "a/deep/d.mp4", "a/notes.txt", "a/b.jpg", "clip.mov"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in TREE:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results(*names: str, out: str = "out") -> list[tuple[str, str]]:
    sources, _ = find_sources(names, Path(out))
    targets = place_results(sources, Path(out))
    return [(source.name, str(target)) for source, target in zip(sources, targets, strict=True)]


def test_a_folder_keeps_its_tree(here: Path) -> None:
    assert results("photos") == [
        ("photos/a/b.jpg", "out/a/b.png"),
        ("photos/a/c.PNG", "out/a/c.png"),
        ("photos/a/deep/d.mp4", "out/a/deep/d.mp4"),
        ("photos/b.jpg", "out/b.png"),
        ("photos/clip.mov", "out/clip.mp4"),
    ]
    sources, _ = find_sources(["photos"])
    assert [source.name for source in sources if source.video] == ["photos/a/deep/d.mp4", "photos/clip.mov"]


def test_links_are_followed_each_folder_once(here: Path) -> None:
    before = results("photos")
    (here / "more").mkdir()
    (here / "more" / "e.jpg").touch()
    (here / "photos" / "link").symlink_to(here / "more")
    (here / "photos" / "loop").symlink_to(here / "photos")
    (here / "photos" / "a" / "again").symlink_to(here / "photos" / "a" / "deep")
    (here / "photos" / "gone.jpg").symlink_to("nowhere.jpg")  # reported when it is read
    added = [("photos/gone.jpg", "out/gone.png"), ("photos/link/e.jpg", "out/link/e.png")]
    assert len(results("photos")) == len(before) + len(added)
    assert set(added) < set(results("photos"))


def test_a_folder_that_may_not_be_read_is_told_of(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(path: str, scandir: Any = os.scandir) -> Any:
        if path.endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    with pytest.raises(UserError, match=r"photos/a/deep: cannot be read \(Permission denied\)"):
        find_sources(["photos"])


def test_files_patterns_and_cameras(here: Path) -> None:
    given = [str(here / "photos" / "b.jpg"), "photos/*/b.jpg", "photos/a*", "camera:0", "/dev/video1"]
    found = results(*given)
    assert found[0] == (given[0], "out/b.png")
    assert found[1] == ("photos/a/b.jpg", "out/b-2.png")  # of the same name
    assert found[2:5] == [
        ("photos/a/b.jpg", "out/b-3.png"),
        ("photos/a/c.PNG", "out/c.png"),
        ("photos/a/deep/d.mp4", "out/deep/d.mp4"),
    ]
    assert found[5:] == [("camera:0", "out/camera-0.mp4"), ("/dev/video1", "out/camera-1.mp4")]


@pytest.mark.parametrize("pattern", ["photos/**", "photos/**/*"])
def test_a_pattern_gives_a_file_once(here: Path, pattern: str) -> None:
    """A pattern may match a folder and also the files in it."""
    (here / "photos" / "a" / "notes.txt").unlink()
    names = [name for name, _ in results(pattern)]
    assert sorted(names) == sorted(name for name, _ in results("photos"))
    assert len(results("photos/b.jpg", "photos/b.jpg")) == 2


def test_what_is_given_is_never_written_to(here: Path) -> None:
    (here / "photos" / "b.png").touch()
    assert ("photos/b.jpg", "photos/b-2.png") in results("photos", out="photos")
    assert ("photos/clip.mov", "photos/clip.mp4") in results("photos", out="photos")
    assert ("photos/a/deep/d.mp4", "photos/a/deep/d-2.mp4") in results("photos", out="photos")


def test_results_of_an_earlier_run_are_not_looked_at(here: Path) -> None:
    (here / "photos" / "out" / "crops").mkdir(parents=True)
    (here / "photos" / "out" / "crops" / "x.png").touch()
    sources, skipped = find_sources(["photos"], Path("photos/out"))
    assert len(sources) == 5 and skipped == [Path("photos/out/crops/x.png")]
    sources, skipped = find_sources(["photos/out"], Path("photos/out"))  # unless they are asked for
    assert len(sources) == 1 and skipped == []


def test_files_without_a_suffix_are_told_by_content(here: Path) -> None:
    Image.new("RGB", (8, 8)).save(here / "picture", format="PNG")
    (here / "text").write_text("neither")
    sources, _ = find_sources(["picture", "text"])
    assert [source.video for source in sources] == [False, False]


@pytest.mark.parametrize("name", ["none.jpg", "*.tif", "a**b", "empty", "nul\0l", "long" * 99])
def test_names_without_a_match(here: Path, name: str) -> None:
    (here / "empty").mkdir()
    with pytest.raises(UserError, match="no such image"):
        find_sources(["photos", name])
