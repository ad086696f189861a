"""Guard of the demo page: it answers only to its own names, and reads no more than it takes."""

import ipaddress
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware that refuses requests to other hosts, and bodies of more than ``limit`` bytes.

    A page of a stranger in the same browser could otherwise have its own name point to this machine (DNS
    rebinding) and use the demo page. Numeric addresses cannot be made to do that.
    host: the address that the page is served on.
    """

    def __init__(self, app: App, host: str, limit: int) -> None:
        self.app, self.limit = app, limit
        self.names = {host.lower(), "localhost", socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not self._is_own(headers.get(b"host", b"").decode("latin-1")):
            await _refuse(send, 421, "This page is not served under this name.")
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.limit:
            await _refuse(send, 413, f"At most {self.limit:,} bytes can be sent.")
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            # A body in chunks has no length in its header.
            return message if seen <= self.limit else {"type": "http.disconnect"}

        await self.app(scope, counted, send)

    def _is_own(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.strip("[]").lower()
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self.names
        return True


async def _refuse(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
