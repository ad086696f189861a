"""Read a picture from an address on the web, within limits of size and time."""

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from fsaf.errors import DataError
from fsaf.text import printable

MOST_BYTES = 100_000_000
"""Largest file that is read."""
TIMEOUT = 20.0
"""Seconds without an answer after which the address is given up."""
DEADLINE = 120.0
"""Seconds that a whole file may take."""
CHUNK = 1 << 16

_AGENT = {"User-Agent": "fsaf"}  # some servers refuse Python's own name


def is_url(name: object) -> bool:
    """Return True for an ``http://`` or ``https://`` address."""
    return isinstance(name, str) and name.lower().startswith(("http://", "https://"))


def fetch(url: str) -> bytes:
    """Return the content of an address; redirects are followed to other http and https addresses only.

    Raises DataError naming the address if the server does not answer with a file of at most 100 MB in time.
    """
    start = time.monotonic()
    content = bytearray()
    with connect(url) as response, _naming(url):
        while chunk := response.read(CHUNK):
            content += chunk
            if len(content) > MOST_BYTES:
                raise DataError(f"{url}: is larger than {MOST_BYTES // 1_000_000} MB; download it yourself")
            if time.monotonic() - start > DEADLINE:
                raise DataError(f"{url}: takes more than {DEADLINE:.0f} seconds; download it yourself")
    kind = response.headers.get_content_type()
    if kind == "text/html":
        raise DataError(f"{url}: is a web page, not a picture; give the address of the picture itself")
    return bytes(content)


def content_type(url: str) -> str:
    """Return the type that the server gives for an address, such as ``image/jpeg``. Raises as ``fetch``."""
    with connect(url) as response:
        return response.headers.get_content_type()


def connect(url: str) -> Any:
    """Return the response to a request. Raises DataError naming the address."""
    with _naming(url):
        if not urlsplit(url).hostname:
            raise DataError(f"{url}: is no address; give http://HOST/NAME")
        return _opener().open(urllib.request.Request(url, headers=_AGENT), timeout=TIMEOUT)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener without the handlers of ftp: and file:, which a redirect could lead to."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


@contextmanager
def _naming(url: str) -> Iterator[None]:
    """Turn errors of a connection into a DataError that names the address."""
    try:
        yield
    except DataError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"the server answers {error.code} {error.reason}"
        if 300 <= error.code < 400:
            reason = "the server redirects in a circle, or to something other than http"
        raise DataError(f"{url}: cannot be read ({printable(reason)})") from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: such as a port that is no number
        cause = getattr(error, "reason", error)
        late = isinstance(cause, TimeoutError)
        reason = f"no answer in {TIMEOUT:.0f} seconds" if late else str(cause) or type(cause).__name__
        raise DataError(f"{url}: cannot be read ({printable(reason)})") from error
