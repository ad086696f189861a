"""What ``fsaf predict`` is to look at, and where the result of each goes."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from fsaf.annotation.video import VIDEO_SUFFIXES, camera_number, is_video
from fsaf.data.decode import IMAGE_SUFFIXES, header_size
from fsaf.errors import DataError, UserError


@dataclass(frozen=True, kw_only=True)
class Source:
    """A picture, a video, or a camera."""

    name: str
    """Its path, or ``camera:0``."""
    place: PurePath
    """Where its results go below the folder of all results, without suffix."""
    video: bool = False

    @property
    def camera(self) -> bool:
        """Whether it has no end."""
        return camera_number(self.name) is not None


def find_sources(names: Sequence[str], out: Path | None = None) -> tuple[list[Source], list[Path]]:
    """Files, folders (all images and videos below them), glob patterns and cameras, in their order.

    out: the folder that results go to; where it lies in a folder given, what an earlier run has left there is
    not looked at, but returned as the second list. Raises UserError for a name without any match.
    """
    sources: list[Source] = []
    skipped: list[Path] = []
    for name in names:
        camera = camera_number(name)
        if camera is not None:
            sources.append(Source(name=name, place=PurePath(f"camera-{camera}"), video=True))
            continue
        found = []
        seen: set[Path] = set()  # a pattern matches folders, and what lies in them, too
        for path in _matches(name):
            for file, place in _files(path):
                if file in seen:
                    continue
                seen.add(file)
                if out is not None and path.resolve() in out.resolve().parents and _inside(file, out):
                    skipped.append(file)
                else:
                    found.append(Source(name=str(file), place=place.with_suffix(""), video=_moves(file)))
        if not found:
            raise DataError(f"{name}: no such image, folder with images, video, or pattern that matches")
        sources += found
    return sources, skipped


def _matches(name: str) -> list[Path]:
    path = Path(name)
    pattern = path.relative_to(path.anchor) if path.is_absolute() else path
    try:
        return [path] if path.exists() else sorted(Path(path.anchor or ".").glob(str(pattern)))
    except (OSError, ValueError):  # neither a name nor a pattern
        return []


def _files(path: Path) -> Iterator[tuple[Path, PurePath]]:
    """A file itself, or the images and videos in a folder, each with its place in that."""
    if not path.is_dir():
        yield path, PurePath(path.name)
        return
    found = []
    seen: set[str] = set()  # links may lead to a folder twice, or back to one above
    for folder, folders, names in os.walk(path, onerror=_refuse, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += [Path(folder, name) for name in names]
    for file in sorted(found):
        if file.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
            yield file, file.relative_to(path)


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error


def _inside(file: Path, folder: Path) -> bool:
    return folder.resolve() in file.resolve().parents


def _moves(file: Path) -> bool:
    """By its name where that tells, else by its content."""
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        return suffix in VIDEO_SUFFIXES
    try:
        header_size(file)
    except UserError:
        return is_video(file)
    return False


def place_results(sources: Sequence[Source], folder: Path) -> list[Path]:
    """A PNG or MP4 in ``folder`` for each source, in its place; numbered where something has that name."""
    taken = {Path(source.name).resolve() for source in sources}
    targets = []
    for source in sources:
        suffix = ".mp4" if source.video else ".png"
        target, number = folder / f"{source.place}{suffix}", 2
        while target.resolve() in taken:
            target, number = folder / f"{source.place}-{number}{suffix}", number + 1
        taken.add(target.resolve())
        targets.append(target)
    return targets
