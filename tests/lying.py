"""A real server that does not take what it is sent, and says something else than Tickpipe would."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.scripted import read_body

Lie = Callable[[BaseHTTPRequestHandler, int], None]


@dataclass
class LyingServer:
    """Answers `lies` in turn, each once, and tells the truth from then on."""

    url: str = ""
    lies: list[Lie] = field(default_factory=list)
    #: The items of the requests that were answered truthfully, and the number of all requests.
    taken: list[dict[str, Any]] = field(default_factory=list)
    requests: int = 0
    #: Bytes of the longest answer that the client read, or that fitted between here and there.
    longest: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


def said(status: int, body: bytes, kind: str = "application/json", **headers: str) -> Lie:
    """The same answer to every request."""

    def lie(handler: BaseHTTPRequestHandler, _items: int) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return lie


def raw(text: bytes, pause_seconds: float = 0.0) -> Lie:
    """The text again and again, without an end, as part of no, one or many answers."""

    def lie(handler: BaseHTTPRequestHandler, _items: int) -> None:
        server: LyingServer = handler.server.lying  # type: ignore[attr-defined]
        sent = 0
        handler.close_connection = True
        while not server.stop.wait(pause_seconds):
            handler.wfile.write(text)
            handler.wfile.flush()
            sent += len(text)
            server.longest = max(server.longest, sent)
            if sent > 50_000_000:
                return

    return lie


def begun(text: bytes, then: Lie) -> Lie:
    """Some bytes, and what goes on from there."""

    def lie(handler: BaseHTTPRequestHandler, items: int) -> None:
        handler.wfile.write(text)
        then(handler, items)

    return lie


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server: LyingServer = self.server.lying  # type: ignore[attr-defined]
        body = read_body(self)
        items = body.get("ticks") or body.get("items") or []
        server.requests += 1
        try:
            if server.lies:
                server.lies.pop(0)(self, len(items))
                return
            server.taken += items
            said(200, b'{"ok":true,"received":%d,"inserted":%d,"errors":0}' % (len(items), len(items)))(self, 0)
        except OSError:
            self.close_connection = True  # the client has had enough

    def do_GET(self) -> None:
        server: LyingServer = self.server.lying  # type: ignore[attr-defined]
        (server.lies.pop(0) if server.lies else said(404, b""))(self, 0)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def lying_server() -> Iterator[LyingServer]:
    """A server on a free port, as long as the context lasts."""
    lying = LyingServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    http.daemon_threads = True
    http.lying = lying  # type: ignore[attr-defined]
    lying.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield lying
    finally:
        lying.stop.set()
        http.shutdown()
        thread.join()
        http.server_close()


PORTAL = said(200, b"<html><title>Hotel Wi-Fi</title>Please log in</html>", "text/html")
REDIRECT = said(302, b"", "text/html", Location="https://wifi.example/login")
KEY_REFUSED = said(401, b'{"error":"send a valid key","code":"UNAUTHORIZED"}')
NOTHING_RECEIVED = said(200, b'{"ok":true,"received":0,"inserted":0,"errors":0,"total":0}')
_CONFIRMS_ONE = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"ok":true,"received":1}'
#: 50 MB, whose beginning would be a confirmation of one item.
ENDLESS = begun(_CONFIRMS_ONE, raw(b" " * 65_536))
#: A byte now and then, within every timeout that begins again with each byte.
DRIP = begun(_CONFIRMS_ONE, raw(b" ", 0.05))
DRIPPING_HEAD = begun(b"HTTP/1.1 200 OK\r\nX-Slow: ", raw(b"x", 0.05))
ENDLESS_CONTINUE = raw(b"HTTP/1.1 100 Continue\r\n\r\n", 0.02)

LIES: dict[str, Lie] = {
    "a portal's page": PORTAL,
    "a redirect": REDIRECT,
    "another redirect": said(307, b"", Location="/login"),
    "a refused key": KEY_REFUSED,
    "a gateway's 401": said(401, b"<html>", "text/html"),
    "a gateway's 403": said(403, b'{"message":"Forbidden"}'),
    "a gateway's 400": said(400, b"<h1>400 Bad Request</h1>", "text/html"),
    "a gateway's 409": said(409, b"conflict", "text/plain"),
    "nothing received": NOTHING_RECEIVED,
    "one too many": lambda handler, items: said(200, b'{"ok":true,"received":%d}' % (items + 1))(handler, items),
    "no body": said(200, b""),
    "204": said(204, b""),
    "ok alone": said(200, b'{"ok":true}'),
    "a list": said(200, b"[1]"),
    "deep": said(200, b"[" * 500_000),
    "no UTF-8": said(200, b'{"received":1,"x":"\xff"}'),
    "packed": said(200, b"\x1f\x8b", **{"Content-Encoding": "gzip"}),
    "half an answer": begun(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"received":1}', raw(b"", 60)),
    "50 MB": ENDLESS,
    "a drip": DRIP,
    "a dripping head": DRIPPING_HEAD,
    "100 for ever": ENDLESS_CONTINUE,
}
