"""What lies between the relay and its server: a certificate that expired, a company's proxy, and a PC that travels."""

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from marketdata.errors import SettingsError
from relay.exporter import Choice, Selection
from relay.forwarder import Forwarder
from relay.pending import Backlog, Pending
from relay.server import Server, check
from relay.store import Store
from tests.certificates import Authority
from tests.scripted import Answer, ScriptedServer, scripted_server
from tests.unit.relay.rows import BASE, put, tick
from tests.waiting import wait_until


@contextmanager
def forwarding(store: Store, url: str) -> Iterator[Forwarder]:
    """A forwarder at work."""
    stop = threading.Event()
    with Server(url, "key") as server:
        forwarder = Forwarder(store, server, Pending(store, limit=1_000), stop=stop)
        thread = threading.Thread(target=forwarder.run)
        thread.start()
        try:
            yield forwarder
        finally:
            stop.set()
            forwarder.wake.set()
            thread.join()


async def eventually(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(wait_until, condition, what=what)


def sent(server: ScriptedServer) -> list[int]:
    return [item["ts_msc"] - BASE for item in server.taken]


async def test_an_expired_certificate_is_said_once_and_costs_no_tick(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.signed("expired", ended=True))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with scripted_server(tls=context) as server, capture_logs() as logs, forwarding(store, server.url) as forwarder:
        await put(store, tick(0))
        await eventually(lambda: forwarder.totals.retries >= 3, "three tries")
        assert "not trusted here (certificate has expired); is this PC's clock right" in forwarder.totals.trouble
        # Renewed; a new connection sees the new one.
        context.load_cert_chain(*authority.signed("renewed"))
        await put(store, tick(1))
        await eventually(lambda: sent(server) == [0, 1], "both ticks")
    assert [line["action"] for line in logs] == ["forward_waits", "forward_recovered"]


def test_a_certificate_of_an_authority_that_is_not_known_is_said_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.signed("server"))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with scripted_server(tls=context) as server, Server(server.url, "key") as receiver:
        (finding,) = check(receiver)
    assert (finding.what, finding.is_good) == ("server", False)
    assert "SSL_CERT_FILE may name that one's PEM file" in finding.text
    # Nothing is wrong with the network.
    assert "firewall" not in finding.text


@pytest.mark.parametrize("content", [None, b"no certificate"], ids=["missing", "other"])
def test_a_file_of_authorities_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(SettingsError, match=r"ca\.pem cannot be read"):
        Server("https://ticks.example.com", "key")


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "ftp://127.0.0.1:9", "http://[::"])
def test_a_proxy_that_cannot_be_used_is_said_with_a_cure(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, proxy)
    with pytest.raises(SettingsError, match="HTTPS_PROXY"):
        Server("https://ticks.example.com", "key")


async def test_a_proxy_of_the_environment_is_used_and_its_refusal_costs_no_tick(
    store: Store, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    server.answers = [Answer(407, {}, {"Proxy-Authenticate": "Basic"}), Answer(502)]
    with capture_logs() as logs, forwarding(store, "http://ticks.example.com"):
        await put(store, tick(0))
        await eventually(lambda: sent(server) == [0], "the tick")
    assert {request.path for request in server.requests} == {"http://ticks.example.com/ingest/tick"}
    assert [line["action"] for line in logs] == ["forward_waits", "forward_recovered"]
    assert "407" in logs[0]["event"]


async def test_a_time_zone_that_changes_moves_nothing(
    store: Store, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        for n, zone in enumerate(["America/Sao_Paulo", "Asia/Tokyo", "America/Los_Angeles"]):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            await put(store, tick(n))
            assert Backlog(store).oldest_seconds() < 60
            assert Selection(store, Choice(since_minutes=1), limit=10).count == n + 1
        stamps = [stamp for (stamp,) in store.connection.execute("SELECT created_at FROM ticks ORDER BY id")]
        assert stamps == sorted(stamps)
        with forwarding(store, server.url):
            await eventually(lambda: sent(server) == [0, 1, 2], "all ticks")
    finally:
        monkeypatch.undo()
        time.tzset()
