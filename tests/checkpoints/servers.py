"""A web server on this machine that behaves as badly as servers do."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


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

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            manners.requests.append(asked)
            if manners.silent:
                done.wait()
                return
            if manners.status != 200:
                self.send_error(manners.status)
                return
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and manners.ranges else 0
            size = len(manners.content)
            if asked and manners.ranges and start >= size:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{size}")
                self.end_headers()
                return
            self.send_response(206 if asked and manners.ranges else 200)
            self.send_header("Content-Length", str(size - start))
            self.end_headers()
            stop = start + manners.breaks.pop(0) if manners.breaks else size
            self.wfile.write(manners.content[start:stop])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            done.set()
            server.shutdown()
            thread.join()
