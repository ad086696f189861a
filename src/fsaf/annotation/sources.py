"""The pictures, videos, cameras and addresses of ``fsaf predict``, and the output file of each."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import unquote

from fsaf.annotation.addresses import STREAMS, scheme_of, split_address
from fsaf.annotation.video import VIDEO_SUFFIXES, camera_number, is_video
from fsaf.data.decode import IMAGE_SUFFIXES, header_size
from fsaf.detection.fetch import content_type
from fsaf.errors import DataError, UserError

STDIN = "-"
"""Name of a picture on standard input."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A picture, a video, a camera, or a stream."""

    name: str
    """Its path or address, ``camera:0``, or ``-`` for a picture on standard input."""
    place: PurePath
    """Path of its results in the output folder, without suffix."""
    video: bool = False

    @property
    def camera(self) -> bool:
        """Return True for a camera, on this machine or on the network, whose stream has no end."""
        return camera_number(self.name) is not None or scheme_of(self.name) in STREAMS


def find_sources(names: Sequence[str], out: Path | None = None) -> tuple[list[Source], list[Path]]:
    """Return files, all images and videos in folders, matches of glob patterns, cameras, addresses, in order.

    out: the output folder; its files are left out and returned as the second list, if it is inside a folder
    given. Raises DataError for a name without any match.
    """
    sources: list[Source] = []
    skipped: list[Path] = []
    for name in names:
        camera = camera_number(name)
        if camera is not None:
            sources.append(Source(name=name, place=PurePath(f"camera-{camera}"), video=True))
            continue
        if name == STDIN:
            sources.append(Source(name=name, place=PurePath("stdin")))
            continue
        if scheme_of(name):
            sources.append(_address(name))
            continue
        found = []
        seen: set[Path] = set()  # a pattern can match a folder and the files in it
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


def _address(name: str) -> Source:
    """Return the source of an address: of http a picture or a video, of other protocols a stream."""
    scheme = scheme_of(name)
    if scheme not in ("http", "https", *STREAMS):
        raise DataError(f"{name}: {scheme} is not supported; http, https, {', '.join(STREAMS)} are")
    path = PurePath(unquote(split_address(name).path))
    stem = re.sub(r"[^\w.-]", "_", path.stem) or "stream"
    suffix = path.suffix.lower()
    video = scheme in STREAMS or suffix in VIDEO_SUFFIXES | {".m3u8"}
    if not video and suffix not in IMAGE_SUFFIXES:
        try:
            video = content_type(name).startswith(("video/", "multipart/", "application/vnd.apple"))
        except DataError:  # reading it will say why
            video = False
    return Source(name=name, place=PurePath(stem), video=video)


def _matches(name: str) -> list[Path]:
    path = Path(name)
    pattern = path.relative_to(path.anchor) if path.is_absolute() else path
    try:
        return [path] if path.exists() else sorted(Path(path.anchor or ".").glob(str(pattern)))
    except (OSError, ValueError):  # neither a name nor a pattern
        return []


def _files(path: Path) -> Iterator[tuple[Path, PurePath]]:
    """Yield a file itself, or the images and videos in a folder, each with its path inside that folder."""
    if not path.is_dir():
        yield path, PurePath(path.name)
        return
    found = []
    seen: set[str] = set()  # links may lead to a folder twice, or to one above
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
    """Return True for a video, by the suffix of its name if possible, else by its content."""
    suffix = file.suffix.lower()
    if suffix in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        return suffix in VIDEO_SUFFIXES
    try:
        header_size(file)
    except UserError:
        return is_video(file)
    return False


def place_results(sources: Sequence[Source], folder: Path) -> list[Path]:
    """Return a PNG or MP4 path in ``folder`` for each source, numbered if the name is taken."""
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
