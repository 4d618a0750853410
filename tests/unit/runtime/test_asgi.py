"""Reads for a name that is not the server's own are refused: a web page may let its name point here.

And every request's body is read to its end before the answer, as far as that is worth it.
"""

import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import uvicorn

from producer.app import create_app
from relay.api import Api
from relay.service import http_server
from relay.store import Store
from runtime import asgi
from runtime.asgi import OwnNames, is_own_name
from runtime.serving import server_config
from runtime.settings import load_settings
from tests.plainhttp import read_status
from tests.ports import free_port
from tests.unit.producer.conftest import KEY, new_settings
from tests.unit.producer.gateway import InMemoryGateway
from tests.unit.serving import served


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:18000", "localhost", "LOCALHOST:18080", "[::1]:18080", "[fe80::1]", "192.168.1.7",
        "trading-pc:18000", "dashboard", "dashboard.tickpipe.svc:18080", "box.local",
        "box.lan:80", "pc7.example.com", "PC7.example.com.:80",
    ],
)  # fmt: skip
def test_own_names(host: str) -> None:
    assert is_own_name(host, {"pc7.example.com"})


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:18000", "127.0.0.1.evil.example", "pc7.example.com.evil.example", "", "a b",
             "localhost.evil.example", "[::1", "evil.example:18000:1", "evil.example/127.0.0.1"],
)  # fmt: skip
def test_names_of_others(host: str) -> None:
    assert not is_own_name(host, {"pc7.example.com"})


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    transport = httpx.ASGITransport(OwnNames(app, ["Pc7.example.com"]))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


async def test_a_foreign_name_reads_nothing_and_the_answer_tells_the_cure(client: httpx.AsyncClient) -> None:
    for method in ("GET", "HEAD"):
        assert (await client.request(method, "/stats", headers={"Host": "evil.example"})).status_code == 421
    answer = (await client.get("/stats", headers={"Host": "evil.example"})).json()
    assert answer["code"] == "UNKNOWN_HOST"
    assert "'evil.example'" in answer["error"]
    assert "TICKPIPE_ALLOWED_HOSTS" in answer["error"]


async def test_own_names_read_and_every_name_may_write(client: httpx.AsyncClient) -> None:
    for host in ("127.0.0.1:18000", "pc7.example.com:18080"):
        assert (await client.get("/stats", headers={"Host": host})).status_code == 200
    # An EA that was told another name of this PC must not lose ticks; pages are recognised by their Origin.
    assert (await client.post("/ingest/tick", headers={"Host": "evil.example"})).status_code == 200


LIMIT_BYTES = 100_000

#: More than the buffers of two sockets of this machine hold, so that it is still under way when it is refused.
LARGE_BYTES = 20_000_000


@pytest.fixture(scope="module", params=["producer", "relay"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    limits = {"max_tick_body_bytes": LIMIT_BYTES, "max_bar_body_bytes": LIMIT_BYTES}
    port = free_port()
    if request.param == "producer":
        app = create_app(new_settings().model_copy(update=limits), gateway=InMemoryGateway())
        with served(uvicorn.Server(server_config(app, "127.0.0.1", port, graceful_seconds=1))):
            yield "127.0.0.1", port
    else:
        store = Store(tmp_path_factory.mktemp("relay") / "ea.db")
        api = Api(store, load_settings().model_copy(update=limits), key=KEY)
        with served(http_server(api, "127.0.0.1", port)):
            yield "127.0.0.1", port
        store.close()


@pytest.mark.parametrize("form", ["declared", "chunked"])
@pytest.mark.parametrize("connection", ["close", "keep-alive"])
@pytest.mark.parametrize(("key", "status"), [(KEY, 413), ("wrong", 401)])
def test_a_client_that_sends_everything_first_reads_the_answer(
    address: tuple[str, int], form: str, connection: str, key: str, status: int
) -> None:
    with socket.create_connection(address, 20) as client:
        client.sendall(head(key, form, connection=connection))
        for _ in range(LARGE_BYTES // 100_000):
            client.sendall(part(form, 100_000))
        client.sendall(b"0\r\n\r\n" if form == "chunked" else b"")
        time.sleep(0.2)  # the answer, and a reset after it, have arrived
        assert read_status(client) == status
        if connection == "keep-alive":
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_status(client) == 200


def test_a_slow_client_is_waited_for(address: tuple[str, int]) -> None:
    with socket.create_connection(address, 20) as client:
        client.sendall(head(KEY, "declared", connection="close"))
        for _ in range(20):
            client.sendall(part("declared", LARGE_BYTES // 20))
            time.sleep(0.03)
        assert read_status(client) == 413


def test_a_client_that_asks_first_is_told_before_it_sends(address: tuple[str, int]) -> None:
    with socket.create_connection(address, 20) as client:
        client.sendall(head(KEY, "declared", "Expect: 100-continue\r\n"))
        assert read_status(client) == 413
        assert client.recv(1) == b""  # what it would send now might be the body or another request


@pytest.mark.parametrize("sends", [True, False], ids=["sends without end", "sends nothing more"])
def test_the_patience_has_an_end(address: tuple[str, int], sends: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "_MAX_BYTES", 2_000_000)
    monkeypatch.setattr(asgi, "patience_seconds", lambda _size: 0.5)
    with socket.create_connection(address, 20) as client:
        client.sendall(head(KEY, "chunked"))
        client.sendall(part("chunked", 2 * LIMIT_BYTES))
        started = time.monotonic()
        if sends:
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                client.sendall(1_000 * part("chunked", 100_000))
        else:
            assert read_status(client) == 413
            assert client.recv(1) == b""
        assert time.monotonic() - started < 10


def head(key: str, form: str, more: str = "", *, connection: str = "keep-alive") -> bytes:
    length = "Transfer-Encoding: chunked" if form == "chunked" else f"Content-Length: {LARGE_BYTES}"
    lines = f"POST /ingest/tick HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nConnection: {connection}\r\n{length}\r\n"
    return f"{lines}{more}\r\n".encode()


def part(form: str, size: int) -> bytes:
    return b"%x\r\n%b\r\n" % (size, b" " * size) if form == "chunked" else b" " * size
