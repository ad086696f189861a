"""A web server on this machine that behaves as badly as servers do."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from web import serving


@dataclass
class Manners:
    """What the server does. content: the file. breaks: bytes after which each answer breaks off, in turn.
    ranges: answer requests for the rest of a file. status: of every answer, instead of the file.
    silent: accept connections and send nothing. requests: the ``Range`` of each request, None without."""

    content: bytes
    breaks: list[int] = field(default_factory=list)
    ranges: bool = True
    status: int = 200
    silent: bool = False
    requests: list[str | None] = field(default_factory=list)


@contextmanager
def serve(manners: Manners) -> Iterator[str]:
    """Serve one file; the address is that of the folder."""
    done = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        manners.requests.append(asked)
        if manners.silent:
            done.wait()
            return
        if manners.status != 200:
            request.send_error(manners.status)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and manners.ranges else 0
        size = len(manners.content)
        if asked and manners.ranges and start >= size:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{size}")
            request.end_headers()
            return
        request.send_response(206 if asked and manners.ranges else 200)
        request.send_header("Content-Length", str(size - start))
        request.end_headers()
        stop = start + manners.breaks.pop(0) if manners.breaks else size
        request.wfile.write(manners.content[start:stop])

    with serving(answer) as address:
        try:
            yield address
        finally:
            done.set()
