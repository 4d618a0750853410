"""Connections that are cut at each stage of a request leave no traceback, no place taken and no open descriptor."""

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import psutil
import pytest
import uvicorn

from runtime.request_body import Scope, Send
from runtime.serving import server_config
from tests.ports import free_port
from tests.security.targets import BODY, RELAY, SENDER, TICK, Targets, http, running_targets
from tests.unit.serving import served
from tests.waiting import wait_until

KEYS = {"producer": SENDER, "relay": RELAY}


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Targets]:
    with running_targets(tmp_path_factory.mktemp("targets")) as running:
        yield running


class Cut(NamedTuple):
    """What is sent before the cut, and whether an answer has begun by then."""

    stage: str
    target: str
    request: bytes
    is_answered: bool = False


def cuts() -> Iterator[Cut]:
    long = b"[" + b",".join([str(TICK).replace("'", '"').encode()] * 5_000) + b"]"
    for target, key in KEYS.items():

        def post(body: bytes, *, key: str = key, **headers: str) -> bytes:
            return http("POST", "/ingest/tick", body, X_API_Key=key, **headers)

        yield Cut("before the head", target, b"")
        yield Cut("in the head", target, post(BODY)[:40])
        yield Cut("in the body", target, post(BODY)[:-20])
        yield Cut("in a body that will be refused", target, post(BODY, key="wrong")[:-20])
        yield Cut("in a chunk", target, post(b"", Transfer_Encoding="chunked") + b"20\r\nabc")
        yield Cut("while one tick is stored", target, post(BODY))
        yield Cut("while many ticks are stored", target, post(long))
        yield Cut("between requests", target, post(BODY, Connection="keep-alive"), is_answered=True)
        yield Cut("behind many requests", target, post(BODY, Connection="keep-alive") * 100, is_answered=True)
        yield Cut("while metrics are written", target, http("GET", "/metrics", X_API_Key=key))
    for path in ("/", "/stream", "/candles?symbol=A", "/metrics", "/ticks?symbol=A&from=1760926800&to=1760926860"):
        yield Cut(f"at once, {path}", "open dashboard", http("GET", path))
        yield Cut(f"while it is answered, {path}", "open dashboard", http("GET", path), is_answered=True)


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("cut", list(cuts()), ids=lambda cut: f"{cut.target}: {cut.stage}")
def test_a_cut_leaves_nothing_behind(
    targets: Targets, cut: Cut, *, is_reset: bool, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    port = targets.ports[cut.target]

    def connections() -> int:
        opened = psutil.Process(os.getpid()).net_connections("tcp")
        return sum(each.laddr[1] == port and each.status != psutil.CONN_LISTEN for each in opened)

    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(cut.request)
        if cut.is_answered:
            assert connection.recv(100)
    wait_until(lambda: connections() == 0, what="a server that has closed the connection")

    assert targets.ask(cut.target, http("GET", "/health"))[0] in (200, 503)
    said = capfd.readouterr()
    text = caplog.text + said.out + said.err
    assert "Traceback" not in text
    assert not [record for record in caplog.records if record.name.startswith("uvicorn") and record.levelno > 30]
    assert len([line for line in said.out.splitlines() if line.strip()]) <= 2


@pytest.mark.parametrize("extensions", [True, False])
def test_a_connection_that_breaks_while_requests_wait_behind_each_other_is_no_error(
    *, extensions: bool, caplog: pytest.LogCaptureFixture
) -> None:
    answered: list[bool] = []

    async def app(_: Scope, receive: Any, send: Send) -> None:
        receive.__self__.transport.abort()
        await asyncio.sleep(0.05)
        answered.append(True)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    port = free_port()
    config = server_config(app, "127.0.0.1", port, graceful_seconds=1, extensions=extensions, lifespan="off")
    with served(uvicorn.Server(config)), socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(http("GET", "/", Connection="keep-alive") * 2)
        with suppress(ConnectionError):
            assert connection.recv(100) == b""
        wait_until(lambda: bool(answered), what="an answer that was tried")
    assert not [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
