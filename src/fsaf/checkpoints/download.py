"""Download a file once: with progress, continued after a break, and checked before use."""

import hashlib
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from fsaf.errors import CheckpointError, WriteError
from fsaf.files import check_folder
from fsaf.text import printable

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""
ATTEMPTS = 4
"""Connections in a row that bring nothing new before the download ends with an error."""
PAUSE = 1.0
"""Seconds before the second connection that brings nothing; each one after it waits as long again."""
CHUNK = 1 << 18


def download(url: str, path: Path, sha256: str) -> None:
    """Download ``url`` to ``path``, unless it is there, and check it before it gets that name.

    A download that breaks off is continued, by this call or by the next one. Processes that want the same
    file wait for one download.

    sha256: the sum that the file must have, in hexadecimal, or the beginning of it.
    Raises CheckpointError that names ``url``, ``path`` and the sum if the file cannot be had or is another
    one; WriteError if it cannot be written.
    """
    if path.is_file():
        return
    check_folder(path.parent)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            if not path.is_file():  # another process may have had the lock
                _receive_all(url, part)
                _check(url, part, sha256)
                part.replace(path)
    except ConnectionError as error:
        raise CheckpointError(
            f"{url}: cannot be downloaded ({error}). Run it again to go on, or get the file on another "
            f"machine and put it at {path}; its SHA-256 begins with {sha256}"
        ) from error
    except OSError as error:
        raise WriteError(
            f"{part}: cannot be written ({error.strerror}); set FSAF_HOME to a folder on another disk"
        ) from error


def _receive_all(url: str, part: Path) -> None:
    """Connect until the file is whole. Raises ConnectionError after ``ATTEMPTS`` that brought nothing new."""
    left = ATTEMPTS
    while True:
        before = _length(part)
        try:
            return _receive(url, part)
        except ConnectionError:
            left = ATTEMPTS if _length(part) > before else left - 1
            if not left:
                raise
        time.sleep(PAUSE * (ATTEMPTS - left))


def _receive(url: str, part: Path) -> None:
    """Append to ``part`` what is missing of it. Raises ConnectionError if the server stops before the end."""
    have = _length(part)
    with _connect(url, have) as response, part.open("ab") as file:
        if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return  # nothing is missing
            file.truncate(0)
            raise ConnectionError("what was there is longer than the file; it was removed")
        if have and response.status != HTTPStatus.PARTIAL_CONTENT:
            file.truncate(0)  # a server that cannot go on sends the whole file
            have = 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        _copy(response, file, have, total, url.rpartition("/")[2])
    if total is not None and _length(part) != total:
        raise ConnectionError(f"broke off after {_length(part) / 1e6:.1f} of {total / 1e6:.1f} MB")


def _connect(url: str, have: int) -> Any:
    """Request ``url`` from byte ``have`` on. Raises ConnectionError if the server does not answer with it."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return error  # a response too
        raise ConnectionError(f"the server answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise ConnectionError(str(getattr(error, "reason", error))) from error


def _copy(source: Any, file: IO[bytes], have: int, total: int | None, name: str) -> None:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(24), DownloadColumn())
    bar = Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    )
    if not console.is_terminal and not have:
        size = "" if total is None else f", {total / 1e6:.0f} MB"
        console.print(f"downloading {printable(name)}{size}", markup=False, highlight=False, soft_wrap=True)
    with bar:
        task = bar.add_task(f"downloading {name}", completed=have, total=total)
        while chunk := _read(source):
            file.write(chunk)
            bar.advance(task, len(chunk))


def _read(source: Any) -> bytes:
    try:
        return bytes(source.read1(CHUNK))
    except (OSError, HTTPException) as error:
        raise ConnectionError(str(error)) from error


def _check(url: str, part: Path, sha256: str) -> None:
    """Remove ``part`` and raise CheckpointError if it has another sum."""
    if not (found := sum_of(part)).startswith(sha256):
        part.unlink()
        raise CheckpointError(
            f"{url}: is not the file that it should be: its SHA-256 begins with {found[: len(sha256)]}, not "
            f"{sha256}. It was removed; try again, from another network if this goes on"
        )


def sum_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
