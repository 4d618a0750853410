"""A small real server that answers what a test tells it to, and writes down what it was sent."""

import gzip
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.waiting import PATIENCE_SECONDS


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    items: list[dict[str, Any]]
    status: int
    #: Tells connections apart.
    port: int


@dataclass
class Answer:
    """A planned answer; one of success counts the items that were sent, unless its body says another number."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class ScriptedServer:
    """Requests without a planned answer are accepted."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    #: More items than this are answered 413.
    most_items: int = 1_000_000
    #: Paths that do not exist.
    missing: set[str] = field(default_factory=set)
    #: Set while requests are to wait before they are answered.
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    requests: list[Request] = field(default_factory=list)
    #: What answers to ticks say is wanted of who can fill; requests of `/fills`, and the answers planned for them.
    wanted: list[dict[str, Any]] = field(default_factory=list)
    fills: list[Request] = field(default_factory=list)
    answers_to_fills: list[Answer] = field(default_factory=list)

    @property
    def taken(self) -> list[dict[str, Any]]:
        """The items of all requests that were accepted, in order."""
        return [item for request in self.requests if request.status < 300 for item in request.items]

    def answer(self, path: str, items: list[Any]) -> Answer:
        if path in self.missing:
            return Answer(404, {"error": "not found"})
        if path == "/fills":
            return self.answers_to_fills.pop(0) if self.answers_to_fills else Answer(200, {"ok": True})
        if len(items) > self.most_items:
            return Answer(413, {"error": "too large", "code": "PAYLOAD_TOO_LARGE"})
        if self.answers:
            return self.answers.pop(0)
        return Answer(200, {"ok": True, "received": len(items), "inserted": len(items), "errors": 0})


def read_body(handler: BaseHTTPRequestHandler) -> dict[str, Any]:
    """The body of a request, unpacked."""
    raw = handler.rfile.read(int(handler.headers["Content-Length"]))
    body: dict[str, Any] = json.loads(
        gzip.decompress(raw) if handler.headers.get("Content-Encoding") == "gzip" else raw
    )
    return body


def _handler(server: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = read_body(self)
            # The list itself: tests spoil what was posted.
            items = body.get("ticks") or body.get("items") or [*body.get("fills", []), *body.get("sessions", [])]
            answer = server.answer(self.path, items)
            (server.fills if self.path == "/fills" else server.requests).append(
                Request(self.path, dict(self.headers), body, items, answer.status, self.client_address[1])
            )
            if self.headers.get("X-Can-Fill") == "ticks" and answer.status < 300 and server.wanted:
                answer.body["wanted"] = server.wanted[:8]
            if server.held.is_set():
                server.released.wait(PATIENCE_SECONDS)
            counted = {"received": len(items)} if answer.status < 300 else {}
            content = json.dumps(counted | answer.body, ensure_ascii=False).encode()
            try:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                self.close_connection = True  # the relay was killed meanwhile

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def scripted_server(tls: ssl.SSLContext | None = None) -> Iterator[ScriptedServer]:
    """A server on a free port, as long as the context lasts; with `tls` over https."""
    server = ScriptedServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}"
    if tls is not None:
        # The handshake is the first reading's: it must not hold up the thread that accepts.
        http.socket = tls.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
        server.url = f"https://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        http.shutdown()
        thread.join()
        http.server_close()
