"""What `::` and the other addresses mean to the servers of every library."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest
import uvicorn
from aiohttp import web

from runtime.addresses import ThreadedServer, asyncio_host, url_of
from runtime.serving import server_config
from tests import plainhttp
from tests.ports import free_port
from tests.unit.serving import served


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def standard_library(host: str, port: int) -> Iterator[None]:
    server = ThreadedServer(host, port, Hello)
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def of_uvicorn(host: str, port: int) -> Iterator[None]:
    async def app(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b""})  # type: ignore[operator]

    with served(uvicorn.Server(server_config(app, host, port, graceful_seconds=1, lifespan="off"))):
        yield


@contextmanager
def of_aiohttp(host: str, port: int) -> Iterator[None]:
    """As Faust serves."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(web.Application())
    loop.run_until_complete(runner.setup())
    loop.run_until_complete(web.TCPSite(runner, asyncio_host(host), port).start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()


@pytest.mark.parametrize("server", [standard_library, of_uvicorn, of_aiohttp])
@pytest.mark.parametrize(
    ("host", "clients"), [("::", ["127.0.0.1", "::1"]), ("::1", ["::1"]), ("127.0.0.1", ["127.0.0.1"])]
)
def test_every_server_answers_on_the_addresses_of_its_host(server: object, host: str, clients: list[str]) -> None:
    port = free_port()
    with server(host, port):  # type: ignore[operator]
        for client in clients:
            assert plainhttp.get(url_of(client, port)).status_code in (204, 404)
        assert plainhttp.get(url_of(host, port)).status_code in (204, 404)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:18001"), ("", "http://127.0.0.1:18001"), ("::1", "http://[::1]:18001"),
        ("::", "http://127.0.0.1:18001"),
    ],
)  # fmt: skip
def test_a_url_is_one_that_a_client_can_use(host: str, url: str) -> None:
    assert url_of(host, 18001) == url
