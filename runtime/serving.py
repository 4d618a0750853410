"""How our HTTP servers run, and what one connection may use; import it only where uvicorn is installed.

Descriptors, bytes and seconds are bounded before anybody is known to be behind a connection. uvicorn waits without end
for the head of a first request, holds heads of any size with httptools, and accepts until the process has no descriptor
left. All three are open to whoever reaches the port, before any key is looked at.
"""

import asyncio
import sys
from collections import Counter
from ipaddress import IPv6Address, ip_address
from typing import Any, ClassVar, Final

import h11
import msgspec
import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from marketdata.contract.http import Refused
from runtime.addresses import asyncio_host
from runtime.asgi import reading_to_the_end
from runtime.heads import is_ambiguous, is_unreadable, without_offer
from runtime.health import Guard
from runtime.process import exit_on_stop_signal
from runtime.request_body import Application, Receive, Scope, Send

#: EAs send every second or so and reuse the connection (seconds).
KEEP_ALIVE_SECONDS = 75

#: Some hundred trading PCs, each with a few; an idle one holds some 20 kB.
MAX_CONNECTIONS = 4_096


def server_config(
    app: Any,
    host: str,
    port: int,
    *,
    graceful_seconds: int,
    extensions: bool = True,
    max_connections: int = MAX_CONNECTIONS,
    **options: Any,
) -> uvicorn.Config:
    """The configuration of a plain HTTP server; lines in logs and headers in answers are the application's alone.

    Args:
        app: an ASGI application.
        host: address to listen on; `::` is every address of both families.
        port: to listen on.
        graceful_seconds: requests under way get this long to finish.
        extensions: whether uvloop (not on Windows, which has none) and httptools are installed and used.
        max_connections: open at once, as far as the process may open files; one address may have half of them.
        options: of `uvicorn.Config`, in the place of what is chosen here.
    """
    chosen: dict[str, Any] = {
        "loop": "uvloop" if extensions and sys.platform != "win32" else "asyncio",
        # Not to be guessed: an ASGI 2 application is a plain function as well.
        "interface": "asgi3",
        "http": bounded_protocol(Connections(max_connections), extensions=extensions),
        "lifespan": "on",
        "ws": "none",
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "proxy_headers": False,
        "timeout_graceful_shutdown": graceful_seconds,
    }
    app = _until_gone(reading_to_the_end(app, _has_arrived))
    return uvicorn.Config(app, host=asyncio_host(host), port=port, **chosen | options)


def _has_arrived(receive: Any) -> bool:
    """Whether the body is whole: uvicorn's `receive` is a method of the request's cycle, which knows."""
    return not receive.__self__.more_body


def _until_gone(app: Application) -> Application:
    """The application, ended silently when the connection breaks while it answers.

    uvicorn tells only the last request of a connection that it is lost. One that others wait behind writes all the
    same, which uvloop refuses; uvicorn would log that as the application's fault, with a traceback each time.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except RuntimeError:
            cycle: Any = getattr(receive, "__self__", None)
            if scope["type"] != "http" or not cycle.transport.is_closing():
                raise
            cycle.disconnected = True

    return serve


def run_server(server: uvicorn.Server, guard: Guard) -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code: 1 when it could not start, another than 0 when a part failed.

    Raises:
        SystemExit: with that exit code, when a signal ended it.
    """
    exit_on_stop_signal(lambda: guard.exit_code)
    server.run()
    return guard.exit_code if server.started else 1


log = structlog.get_logger(__name__)

#: A request's line and headers together, its trailers, and what frames its chunks beyond the chunks (bytes).
HEAD_BYTES: Final = 64 * 1024

#: A head must be complete this long after the connection, or after its first byte (seconds).
HEAD_SECONDS: Final = 20.0

#: The rest of a body whose request was answered early is read away for so long: many clients read an answer only when
#: they have sent everything, and a connection that is closed before takes the answer with it (seconds).
_REST_SECONDS: Final = 60.0

#: Descriptors for files, Kafka and the database.
_OTHER_DESCRIPTORS: Final = 128

#: Log that connections are refused so often at most (seconds).
_SAY_EVERY_SECONDS: Final = 30.0


def _answer(status: bytes, refused: Refused, *more: bytes) -> bytes:
    body = msgspec.json.encode(refused)
    lines = (b"HTTP/1.1 " + status, b"content-type: application/json", b"connection: close", *more)
    return b"\r\n".join((*lines, b"content-length: %d" % len(body), b"", body))


_CROWDED: Final = _answer(
    b"503 Service Unavailable", Refused("too many connections are open", "CROWDED"), b"retry-after: 5"
)
_HEAD_TOO_LARGE: Final = _answer(
    b"431 Request Header Fields Too Large",
    Refused(f"the URL and the headers have more than {HEAD_BYTES // 1024} kB", "HEAD_TOO_LARGE"),
)
_NO_HTTP: Final = _answer(
    b"400 Bad Request",
    Refused(
        "this is no HTTP/1.1 request; does Content-Length count the bytes of the body, not its characters?", "NO_HTTP"
    ),
)


def raise_descriptor_limit(wanted: int) -> int:
    """Raise the process's own limit of descriptors as far as it may, up to `wanted`; the limit that holds now."""
    if sys.platform == "win32":
        return wanted
    import resource  # noqa: PLC0415  # Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < wanted:
        soft = wanted if hard == unlimited else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == unlimited else soft


class Connections:
    """Counts the connections of a server, all and by address.

    One address may have half of them, so that no single machine locks out the others. IPv6 addresses count by their
    /64, which is what one customer gets.

    Args:
        limit: connections at once, as far as the descriptors allow.
    """

    def __init__(self, limit: int) -> None:
        descriptors = raise_descriptor_limit(limit + _OTHER_DESCRIPTORS)
        self.limit = max(2, min(limit, descriptors - _OTHER_DESCRIPTORS))
        if self.limit < limit:
            log.warning(
                "The process may open few files; that limits the connections. Raise it (ulimit -n, LimitNOFILE=).",
                action="few_descriptors", descriptors=descriptors, connections=self.limit,
            )  # fmt: skip
        self._by_address: Counter[object] = Counter()
        self._count = 0
        self._refused = 0
        self._said_at = -_SAY_EVERY_SECONDS

    def enter(self, owner: object) -> bool:
        """Whether one more connection of this owner has room; if so it is counted."""
        if self._count >= self.limit or (owner is not None and self._by_address[owner] >= self.limit // 2):
            self._say_refused(owner)
            return False
        self._count += 1
        self._by_address[owner] += 1
        return True

    def leave(self, owner: object) -> None:
        """Count a connection as ended."""
        self._count -= 1
        self._by_address[owner] -= 1
        if not self._by_address[owner]:
            del self._by_address[owner]

    def _say_refused(self, owner: object) -> None:
        self._refused += 1
        now = asyncio.get_running_loop().time()
        if now - self._said_at >= _SAY_EVERY_SECONDS:
            self._said_at = now
            log.warning(
                "Refusing connections: too many are open.",
                action="crowded", open=self._count, limit=self.limit, of_address=self._by_address[owner],
                address=str(owner), refused=self._refused,
            )  # fmt: skip


def owner_of(address: str) -> object:
    """Whom connections from this address count for; None when that is not known."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address):
        return parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64)
    return parsed


class _Bounded:
    """Closes connections that take too much; a mixin to be put before one of uvicorn's protocols."""

    admitted: ClassVar[Connections]

    transport: asyncio.Transport
    cycle: Any
    loop: asyncio.AbstractEventLoop

    #: Bytes that may come beside the body until the request is complete.
    _spare = HEAD_BYTES
    _owner: object = None
    _is_admitted = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take a place, or answer 503."""
        peer = transport.get_extra_info("peername")
        self._owner = owner_of(peer[0]) if isinstance(peer, tuple) else None
        self._is_admitted = self.admitted.enter(self._owner)
        if not self._is_admitted:
            transport.write(_CROWDED)
            transport.close()
            return
        super().connection_made(transport)  # type: ignore[misc]
        self._expect(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the place."""
        if self._is_admitted:
            self.admitted.leave(self._owner)
            self._expect(None)
            super().connection_lost(exc)  # type: ignore[misc]

    def data_received(self, data: bytes) -> None:
        """Hand the data on, and end the connection when a head is too large."""
        if not self._is_admitted:
            return
        before = self.cycle
        if before is None or not before.more_body:
            data = without_offer(data)
        self._spare -= len(data)
        super().data_received(data)  # type: ignore[misc]
        cycle = self.cycle
        if cycle is not before:
            self._spare = HEAD_BYTES
            if self._deadline is not None:
                self._expect(None)
        elif self._spare > HEAD_BYTES:
            self._spare = HEAD_BYTES
        elif self._spare < 0:
            self._end_too_large(cycle)
        elif self._deadline is None and (cycle is None or cycle.response_complete):
            self._expect(_REST_SECONDS if cycle is not None and cycle.more_body else HEAD_SECONDS)

    def eof_received(self) -> bool:
        """Answer a sender that has said all and only listens; whoever leaves while it reads is gone."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.more_body or cycle.scope["method"] != "POST":
            return False
        cycle.keep_alive = False
        return True

    def send_400_response(self, _: str) -> None:
        """Say what may be wrong, in the place of uvicorn; a request that is complete gets its own answer first."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            cycle.keep_alive = False
            return
        if cycle is None or not cycle.more_body or not cycle.response_complete:
            self.transport.write(_NO_HTTP)
        self.transport.close()

    def _end_too_large(self, cycle: Any) -> None:
        if not self.transport.is_closing():
            if cycle is None or cycle.response_complete:
                self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()

    def _expect(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._close)

    def _close(self) -> None:
        self._deadline = None
        self.transport.close()


class _BoundedH11(_Bounded, H11Protocol):  # type: ignore[misc]
    def handle_events(self) -> None:
        """Bytes that h11 took for a request or its body are not the head's; h11 bounds heads and trailers itself.

        The line end that some clients write behind a body, and do not count, is no head (RFC 9112, 2.2).
        """
        if self.conn.their_state is h11.IDLE:
            waiting, _ = self.conn.trailing_data
            if is_unreadable(waiting):
                self.send_400_response("")
                return
            if waiting.startswith((b"\r", b"\n")):
                self.conn = h11.Connection(h11.SERVER, self.config.h11_max_incomplete_event_size or HEAD_BYTES)
                if rest := waiting.lstrip(b"\r\n"):  # nothing would be the connection's end
                    self.conn.receive_data(rest)
        super().handle_events()
        self._spare = HEAD_BYTES


def bounded_protocol(connections: Connections, *, extensions: bool) -> type[asyncio.Protocol]:
    """uvicorn's protocol with these bounds; httptools' where that is installed and wanted."""
    base: type = _BoundedH11
    if extensions:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: PLC0415  # not on every machine

        class BoundedHttpTools(_Bounded, HttpToolsProtocol):  # type: ignore[misc]
            def on_body(self, body: bytes) -> None:
                """Ignore the body: only heads are bounded here."""
                self._spare += 2 * len(body)
                super().on_body(body)

            def on_headers_complete(self) -> None:
                """Keep trailers out of the headers: uvicorn adds them to the list that the application has already.

                Raises:
                    ValueError: to be answered 400.
                """
                parser = self.parser
                if is_ambiguous(parser.get_method(), self.url, parser.get_http_version(), self.headers):
                    raise ValueError("a head that can be read in two ways")
                # A client of HTTP/1.0 does not know that another answer follows (RFC 9110, 10.1.1).
                self.expect_100_continue &= parser.get_http_version() != "1.0"
                super().on_headers_complete()
                self.headers = []

        base = BoundedHttpTools
    return type(base.__name__, (base,), {"admitted": connections})
