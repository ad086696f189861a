"""Addresses of videos and of cameras on the network, opened with PyAV (FFmpeg)."""

import re
import socket
import time
from typing import Any
from urllib.parse import SplitResult, urlsplit

from fsaf.errors import DataError
from fsaf.text import printable

STREAMS = ("rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "tcp")
"""Protocols of cameras on the network, which FFmpeg reads."""
TIMEOUT = 20.0
"""Seconds without an answer after which an address is given up."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)([^/@:]*:)[^/@]*@")


def scheme_of(name: str) -> str:
    """Return the protocol of an address in lower case, such as ``rtsp``; an empty text for anything else."""
    match = _SCHEME.match(name)
    return match[1].lower() if match else ""


def without_password(name: str) -> str:
    """Return an address for messages and results: without the password that cameras on the network take."""
    return _PASSWORD.sub(r"\1***@", name)


def split_address(name: str) -> SplitResult:
    """Return the parts of an address. Raises DataError naming it if it has none."""
    try:
        return urlsplit(name)
    except ValueError as error:
        where = without_password(name)
        raise DataError(
            f"{where}: is no address ({error}); write [ and ] in a password as %5B and %5D"
        ) from error


def open_address(name: str) -> Any:
    """Return PyAV's container of an address.

    Raises DataError naming the address if nothing there opens as a video within ``TIMEOUT`` seconds.
    """
    import av

    start, address = time.monotonic(), split_address(name)
    options = {"rtsp_transport": "tcp"} if address.scheme.startswith("rtsp") else {}  # UDP loses packets
    try:
        return av.open(name, options=options, timeout=TIMEOUT)
    except av.error.FFmpegError as error:
        reason = printable(error.strerror)
        if time.monotonic() - start >= TIMEOUT:
            reason = no_answer()
        elif not _is_known(address.hostname):
            reason = f"the host {address.hostname} is not known"
        raise DataError(f"{without_password(name)}: does not open as a video ({reason})") from error


def no_answer() -> str:
    """Return the reason why an address is given up."""
    return f"no answer in {TIMEOUT:g} seconds"


def _is_known(host: str | None) -> bool:
    """Return False for a name of a host that has no address."""
    try:
        return host is None or bool(socket.getaddrinfo(host, None))
    except OSError:
        return False
