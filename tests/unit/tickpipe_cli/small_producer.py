"""A small real producer: an HTTP server that answers what a test tells it to, and writes down what it was sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    """One request as it arrived, and what was answered."""

    path: str
    headers: dict[str, str]
    ticks: list[dict[str, Any]]
    status: int
    #: Tells connections apart.
    port: int


@dataclass
class Answer:
    """What the next request is answered."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class SmallProducer:
    """The server's address and memory; requests without a planned answer are accepted."""

    url: str
    #: Answers to the next requests, in order.
    answers: list[Answer] = field(default_factory=list)
    #: More ticks than this are answered 413.
    most_ticks: int = 1_000_000
    requests: list[Request] = field(default_factory=list)

    @property
    def taken(self) -> list[dict[str, Any]]:
        """The ticks of all requests that were accepted, in order."""
        return [tick for request in self.requests if request.status < 300 for tick in request.ticks]


def _handler(producer: SmallProducer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            ticks = json.loads(body)["ticks"]
            if len(ticks) > producer.most_ticks:
                answer = Answer(413, {"error": "too large"})
            elif producer.answers:
                answer = producer.answers.pop(0)
            else:
                answer = Answer(200, {"ok": True, "received": len(ticks), "inserted": len(ticks), "errors": 0})
            producer.requests.append(
                Request(self.path, dict(self.headers), ticks, answer.status, self.client_address[1])
            )
            content = json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def small_producer() -> Iterator[SmallProducer]:
    """A producer on a free port, as long as the context lasts."""
    producer = SmallProducer("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(producer))
    producer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield producer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
