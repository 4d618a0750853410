"""ASGI layers around our applications: foreign host names are refused, and request bodies are read to the end.

`OwnNames` answers only reads for names that are this server's own, so that no web page can read it through its reader.
A page may let its own name point at 127.0.0.1 a moment after it was loaded (DNS rebinding); the browser then takes the
relay or the dashboard for the page's own server, and only the header `Host` still tells the truth. Such a name has a
dot in it: addresses, and names without one, cannot be anybody's page on the internet.

`reading_to_the_end` reads the rest of a body before the request is answered. A server that answers and closes while its
sender is still sending makes the system reset the connection, and the answer is lost: the sender never learns that its
body was too large or its key wrong.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection
from ipaddress import ip_address
from socket import gethostname
from typing import Final

import msgspec

from marketdata.contract.http import Refused
from runtime.request_body import Application, Message, Receive, Scope, Send, patience_seconds

_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/@\s]+)(?::\d{1,5})?")

#: Endings of names that no public DNS gives out: the loopback's, a home network's, a cluster's.
_PRIVATE_ENDINGS: Final = (".localhost", ".local", ".lan", ".home.arpa", ".internal", ".svc", ".cluster.local")


def is_own_name(host: str, allowed: Collection[str]) -> bool:
    """Whether a header `Host` names this server.

    Args:
        host: as it was sent, with or without a port.
        allowed: lower-case names with dots that are this server's as well.
    """
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found[1].strip("[]").rstrip(".").lower()
    try:
        ip_address(name)
    except ValueError:
        return "." not in name or name.endswith(_PRIVATE_ENDINGS) or name in allowed
    return True


class OwnNames:
    """ASGI: hands on reads for this server's own names, and answers 421 to others."""

    def __init__(self, app: Application, allowed: Collection[str]) -> None:
        """Serve `app`, an ASGI application; `allowed` are names with dots that are this server's besides its own."""
        self._app = app
        self._allowed = frozenset(name.rstrip(".").lower() for name in (*allowed, gethostname()))
        #: Few names are asked for, again and again.
        self._known: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        # What writes is no web page's: a browser says of it where it comes from, and that is refused.
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            # HTTP/1.0 needs no Host; a browser sends one.
            host = next((value for name, value in scope["headers"] if name == b"host"), b"")
            if host and host not in self._known:
                if not is_own_name(host.decode("latin-1"), self._allowed):
                    await self._refuse(host, send)
                    return
                if len(self._known) < 100:
                    self._known.add(host)
        await self._app(scope, receive, send)

    async def _refuse(self, host: bytes, send: Send) -> None:
        name = host[:200].decode("latin-1")
        message = f"this server does not know itself as {name!r}; if it is, list the name in TICKPIPE_ALLOWED_HOSTS"
        body = msgspec.json.encode(Refused(message, "UNKNOWN_HOST"))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 421, "headers": headers})
        await send({"type": "http.response.body", "body": body})


#: How much of a body is read for nothing: four times the largest body by default. Beyond that a sender must notice by
#: the reset (bytes).
_MAX_BYTES: Final = 256 * 1024 * 1024

_REQUEST_TIMEOUT: Final = 408


def reading_to_the_end(app: Application, has_arrived: Callable[[Receive], bool] = lambda _: False) -> Application:
    """The application, whose answers wait until the body of the request has been read, within bytes and seconds.

    Where the body does not end within them, the answer says `Connection: close`.

    Args:
        app: an ASGI application.
        has_arrived: whether the server holds the whole body of a request already; then nothing has to be read.
    """

    def answer(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and not has_arrived(receive):
            headers = dict(scope["headers"])
            if b"content-length" in headers or b"transfer-encoding" in headers:
                exchange = _Exchange(headers, receive, send)
                receive, send = exchange.receive, exchange.send
        return app(scope, receive, send)

    return answer


class _Exchange:
    """A request with a body and its answer."""

    __slots__ = ("_asks_first", "_declared", "_is_read", "_receive", "_send")

    def __init__(self, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._declared = headers.get(b"content-length", b"")
        #: Sends its body only when it is asked for it, which the first `receive` does.
        self._asks_first = headers.get(b"expect", b"").lower() == b"100-continue"
        self._is_read = False

    async def receive(self) -> Message:
        self._asks_first = False
        message = await self._receive()
        self._is_read = not message.get("more_body")  # neither the last part has it nor a disconnect
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._is_read and not await self._read_rest(message):
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await self._send(message)

    async def _read_rest(self, answer: Message) -> bool:
        """Read the rest of the body; returns whether it was read to the end."""
        # A sender that is answered 408 has used up its time already.
        if self._asks_first or answer["status"] == _REQUEST_TIMEOUT or int(self._declared or 0) > _MAX_BYTES:
            return False
        size = 0
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(patience_seconds(0)) as deadline:
                while not self._is_read and size <= _MAX_BYTES:
                    size += len((await self.receive()).get("body", b""))
                    if not deadline.expired():
                        deadline.reschedule(started + patience_seconds(size))
        except TimeoutError:
            return False
        return self._is_read
