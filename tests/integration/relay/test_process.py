"""The relay as a process: its local API, and what a kill, a lock and an unwilling server do to it."""

import asyncio
import gzip
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests import plainhttp, tools
from tests.integration.relay.conftest import StartRelay
from tests.integration.relay.process import RelayProcess
from tests.scripted import Answer, ScriptedServer
from tests.unit.relay.rows import BASE, tick
from tests.unit.relay.test_database import old_file
from tests.waiting import PATIENCE_SECONDS, wait_until


def times(server: ScriptedServer) -> list[int]:
    return [item["ts_msc"] - BASE for item in server.taken]


def test_the_local_api_answers_as_eas_expect(start_relay: StartRelay, tmp_path: Path) -> None:
    relay = start_relay(None)
    answer = relay.post({"ticks": [tick(0), tick(0, "USDJPY")]})
    assert (answer.status_code, answer.json()) == (
        200,
        {"ok": True, "queued": True, "received": 2, "inserted": 2, "duplicates": 0, "errors": 0, "total": 2},
    )
    mixed = relay.post([tick(1), {"symbol": "EURUSD"}])
    assert (mixed.status_code, mixed.json()["errors"], mixed.json()["details"][0]["index"]) == (207, 1, 1)
    nothing = relay.post([])
    assert (nothing.status_code, nothing.json()["inserted"]) == (200, 0)
    assert relay.post([{"symbol": "EURUSD"}]).json()["details"] == [
        {"index": 0, "field": "ts", "message": "no time: send time_msc, ts_msc or ts"}
    ]
    bar = {"symbol": "EURUSD", "ts": BASE, "timeframe": "M1", "open": 1, "high": 3, "low": 1, "close": 2, "volume": 9}
    assert relay.post({"items": [bar, tick(2)]}, "/ingest").json()["inserted"] == 2
    packed = relay.post(gzip.compress(json.dumps(tick(3)).encode() + b"\0"), Content_Encoding="gzip")
    assert packed.status_code == 200
    assert relay.post(b" " * (64 * 1024 * 1024 + 1)).status_code == 413
    assert relay.post(tick(4), Origin="https://evil.example").status_code == 403
    assert relay.get("/ingest/tick").status_code == 405
    assert relay.get("/nothing").status_code == 404
    assert relay.get("/health").json() == {
        "ok": True, "total_ticks": 6, "count": 6, "queue": 6, "db": str(tmp_path / "ea.db"),
    }  # fmt: skip
    assert relay.stats() == {
        "total_ticks": 6, "unique_symbols": 2, "pending": 6, "count": 6, "queue": 6, "db": str(tmp_path / "ea.db"),
        "top_symbols": [{"symbol": "EURUSD", "ticks": 5}, {"symbol": "USDJPY", "ticks": 1}],
    }  # fmt: skip
    assert relay.metric("tickpipe_relay_rows_stored_total") == 6
    assert relay.stop() == 0


@pytest.mark.full  # producer/test_service.py has a body of this size
def test_the_backlog_of_hours_is_queued_in_one_body(start_relay: StartRelay) -> None:
    relay = start_relay(None)
    ticks = [json.dumps(tick(n // 3, n=n) | {"comment": "x" * 195}) for n in range(200_000)]
    body = ('{"ticks":[' + ",".join(ticks) + "]}").encode()
    assert 60_000_000 < len(body) <= 64 * 1024 * 1024

    answer = relay.post(body, timeout=PATIENCE_SECONDS)

    assert (answer.status_code, answer.json()["inserted"]) == (200, 200_000)
    assert relay.stats()["pending"] == 200_000
    assert relay.peak_memory_mb() < 200


@pytest.mark.full
@pytest.mark.long(30)
async def test_three_bodies_of_64_mb_at_once_stay_within_memory_and_lose_nothing(start_relay: StartRelay) -> None:
    relay = start_relay(None)
    ticks = [json.dumps(tick(n // 3, n=n) | {"comment": "x" * 195}) for n in range(200_000)]
    first = ('{"ticks":[' + ",".join(ticks) + "]}").encode()
    bodies = [first.replace(b"EURUSD", symbol) for symbol in (b"EURUSD", b"GBPUSD", b"USDJPY")]

    await asyncio.gather(*(asyncio.to_thread(relay.post_until_taken, body) for body in bodies))

    assert relay.stats()["top_symbols"] == [
        {"symbol": symbol, "ticks": 200_000} for symbol in ("EURUSD", "GBPUSD", "USDJPY")
    ]
    # 215 to 265 MB, depending on which body is read while another is stored.
    assert relay.peak_memory_mb() < 300


def test_a_relay_that_others_can_reach_needs_a_key() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tickpipe", "relay", "serve", "--host", "0.0.0.0"],  # noqa: S104  # must be refused
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "TICKPIPE_RELAY_KEY" in ended.stderr


async def test_concurrent_posts_are_all_stored_and_forwarded_in_order(
    start_relay: StartRelay, server: ScriptedServer
) -> None:
    relay = start_relay(server.url)
    symbols = [f"S{n}" for n in range(8)]

    async def ea(client: httpx.AsyncClient, symbol: str) -> None:
        for n in range(100):
            answer = await client.post("/ingest/tick", json={"ticks": [tick(n // 3, symbol, n=n)]})
            assert answer.json()["inserted"] == 1

    async with httpx.AsyncClient(base_url=relay.url, timeout=PATIENCE_SECONDS) as client:
        await asyncio.gather(*(ea(client, symbol) for symbol in symbols))
    await asyncio.to_thread(relay.wait_forwarded)
    for symbol in symbols:
        assert [item["n"] for item in server.taken if item["symbol"] == symbol] == list(range(100))
    page = await asyncio.to_thread(relay.get, "/")
    assert all(symbol in page.text for symbol in (*symbols, server.url, ">800<"))
    rebound = await asyncio.to_thread(
        plainhttp.get, relay.url, headers={"Host": "rebound.example.com"}, timeout=PATIENCE_SECONDS
    )
    assert rebound.status_code == 421


def test_a_kill_between_commit_and_confirmation_loses_nothing(start_relay: StartRelay, server: ScriptedServer) -> None:
    relay = start_relay(server.url)
    for n in range(50):
        relay.post(tick(n))
    relay.wait_forwarded()
    server.held.set()
    relay.post([tick(n) for n in range(50, 60)])
    wait_until(lambda: len(times(server)) == 60, what="the held request")
    for n in range(60, 100):
        relay.post(tick(n))
    relay.kill()
    server.held.clear()
    server.released.set()
    relay.start()
    relay.wait_forwarded()
    # The last request was taken, but the relay never heard of it.
    assert times(server) == [*range(60), *range(50, 100)]


def test_every_answer_of_a_server_is_survived(start_relay: StartRelay, server: ScriptedServer) -> None:
    server.most_items = 30
    server.answers = [
        Answer(503, {"error": "Kafka"}, {"Retry-After": "1"}),
        Answer(429, {"error": "slow"}),
        Answer(207, {"errors": 1, "details": [{"index": 2, "field": "bid", "message": "odd"}]}),
    ]
    relay = start_relay(server.url)
    for start in range(0, 100, 50):
        relay.post([tick(n) for n in range(start, start + 50)])
    relay.wait_forwarded()
    assert times(server) == list(range(100))
    with closing(sqlite3.connect(relay.db)) as connection:
        assert connection.execute("SELECT ts_ms - ?, reason FROM rejected", [BASE]).fetchall() == [(2, "bid: odd")]


def test_a_refused_key_shows_everywhere_until_the_server_takes_it(
    start_relay: StartRelay, server: ScriptedServer
) -> None:
    server.answers = [Answer(401, {"error": "no", "code": "UNAUTHORIZED"}) for _ in range(1_000)]
    relay = start_relay(server.url)
    relay.post(tick(0))
    wait_until(lambda: relay.stats()["forwarding"]["trouble"], what="a relay that says its trouble")
    assert "TICKPIPE_RELAY_FORWARD_KEY" in relay.stats()["forwarding"]["trouble"]
    assert relay.post(tick(1)).status_code == 200
    health = relay.get("/health")
    assert (health.status_code, health.json()["ok"]) == (200, False)
    assert "refuses the key" in health.json()["trouble"]
    metrics = relay.get("/metrics").text
    assert "tickpipe_relay_server_up 0.0" in metrics
    assert 'tickpipe_relay_trouble{cause="key"} 1.0' in metrics
    assert 'tickpipe_relay_trouble{cause="foreign_answer"} 0.0' in metrics
    assert "tickpipe_relay_backlog_rows 2.0" in metrics
    # Nobody starts the relay again.
    server.answers.clear()
    relay.wait_forwarded()
    assert times(server) == [0, 1]


def test_a_database_that_a_backup_locks_is_answered_503_said_once_and_survived(
    tmp_path: Path, server: ScriptedServer
) -> None:
    log = tmp_path / "relay.log"
    relay = RelayProcess(tmp_path / "ea.db", server.url, log=log)
    relay.start()
    try:
        server.held.set()
        relay.post(tick(0))
        wait_until(lambda: times(server) == [0], what="a request under way")
        with closing(sqlite3.connect(relay.db, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            # What the server confirms now cannot be stored before the lock is gone.
            server.held.clear()
            server.released.set()
            for _ in range(2):
                answer = relay.post(tick(1))
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
                assert answer.json()["code"] == "STORE_UNAVAILABLE"
            assert "lock" in relay.get("/").text
            other.execute("ROLLBACK")
        assert relay.post(tick(1)).status_code == 200
        relay.wait_forwarded()
        assert times(server) == [0, 1]
    finally:
        relay.close()
    said = log.read_text()
    assert (said.count("action=store_failing"), said.count("action=store_recovered")) == (1, 1)


def test_the_start_says_that_an_archive_is_not_deleted_from(tmp_path: Path, server: ScriptedServer) -> None:
    old_file(tmp_path / "ea.db", 10)
    relay = RelayProcess(tmp_path / "ea.db", server.url, log=tmp_path / "relay.log")
    try:
        relay.start()
        relay.wait_forwarded()
    finally:
        relay.close()
    assert "No row is deleted: the file was there before the relay." in (tmp_path / "relay.log").read_text()
    assert len(server.taken) == 10


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    with tools.small_disk(tmp_path / "disk", "1m") as folder:
        yield folder


@pytest.mark.full
def test_a_full_disk_refuses_and_loses_nothing_that_was_taken(small_disk: Path, server: ScriptedServer) -> None:
    queueing, forwarding = (RelayProcess(small_disk / "ea.db", url) for url in (None, server.url))
    requests = [[tick(n, n=n, comment="x" * 200) for n in range(i * 50, i * 50 + 50)] for i in range(200)]
    try:
        queueing.start()
        answers = [queueing.post(request) for request in requests]
        assert {answer.status_code for answer in answers} == {200, 503}
        refused = [request for request, answer in zip(requests, answers, strict=True) if answer.status_code == 503]
        assert all(answer.headers["Retry-After"] for answer in answers if answer.status_code == 503)
        assert 5 < len(refused) < 195

        subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
        assert [queueing.post(request).status_code for request in refused] == [200] * len(refused)
        queueing.close()
        forwarding.start().wait_forwarded()
        assert sorted(item["n"] for item in server.taken) == list(range(10_000))
    finally:
        queueing.close()
        forwarding.close()
