"""Reads for a name that is not the server's own are refused: a web page may let its name point here."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from runtime.hosts import OwnNames, is_own_name


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
