"""`/health`, `/ready` and `/metrics` of a process without an HTTP framework, answered by a thread of their own."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from runtime.guard import Guard
from runtime.health import Health


class StatusServer:
    """A small HTTP server, so that probes are answered however busy the event loop is.

    Raises:
        OSError: when the address cannot be bound.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health, guard: Guard) -> None:
        self._server = ThreadingHTTPServer((host, port), _handler(registry, health))
        self._server.daemon_threads = True
        self._thread = guard.thread("status server", self._server.serve_forever)

    @property
    def port(self) -> int:
        """The port that was bound; another than asked for when that was 0."""
        return self._server.server_port

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


def _handler(registry: CollectorRegistry, health: Health) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry))
            elif path == "/health":
                self._answer_json(*health.health())
            elif path == "/ready":
                self._answer_json(*health.ready())
            else:
                self._answer_json(HTTPStatus.NOT_FOUND, {"error": "not found", "code": "NOT_FOUND"})

        def _answer_json(self, status: int, body: Mapping[str, object]) -> None:
            self._answer(status, "application/json", json.dumps(body).encode())

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: a probe every few seconds is no news."""

    return Handler
