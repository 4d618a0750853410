"""The PC's clock may jump: nothing that the relay orders, sends or deletes depends on it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.faked_clock import FakedClock
from tests.integration.relay.process import RelayProcess
from tests.scripted import ScriptedServer
from tests.unit.relay.rows import BASE, tick
from tests.waiting import wait_until


@pytest.fixture
def clock(tmp_path: Path) -> FakedClock:
    return FakedClock(tmp_path)


@pytest.fixture
def relay(tmp_path: Path, server: ScriptedServer, clock: FakedClock) -> Iterator[RelayProcess]:
    """A relay with a clock of its own; its server has the real time."""
    relay = RelayProcess(tmp_path / "ea.db", server.url, environment=clock.environment)
    relay.start()
    yield relay
    relay.close()


def test_confirmed_rows_are_not_old_because_the_clock_jumped(
    relay: RelayProcess, server: ScriptedServer, clock: FakedClock
) -> None:
    for n, offset in enumerate(["+0", "+30d", "-30d"]):
        clock.set(offset)
        relay.kill()
        relay.start()
        # The second request leaves after the forwarder has looked for old rows.
        for after in (2 * n, 2 * n + 1):
            relay.post(tick(after))
            relay.wait_forwarded()
    assert [item["ts_msc"] - BASE for item in server.taken] == list(range(6))
    with closing(sqlite3.connect(relay.db)) as connection:
        stored = connection.execute("SELECT ts_ms - ?, created_at FROM ticks ORDER BY id", [BASE]).fetchall()
    assert [ts for ts, _ in stored] == list(range(6))
    # The clock really jumped.
    stamps = [stamp for _, stamp in stored]
    assert stamps != sorted(stamps)


def test_a_pc_that_sleeps_loses_nothing(tmp_path: Path, server: ScriptedServer, clock: FakedClock) -> None:
    # Of a sleep the monotonic clock of Windows shows the time as well.
    environment = clock.environment | {"FAKETIME_DONT_FAKE_MONOTONIC": "0"}
    log = tmp_path / "relay.log"
    relay = RelayProcess(tmp_path / "ea.db", server.url, environment=environment, log=log)
    relay.start()
    try:
        relay.post(tick(0))
        relay.wait_forwarded()
        server.held.set()
        relay.post(tick(1))
        # It falls asleep in the middle of a request, which ends without an answer.
        wait_until(lambda: len(server.requests) == 2, what="the request")
        clock.set("+8h")
        server.held.clear()
        server.released.set()
        for n in range(2, 5):
            relay.post(tick(n))
        relay.wait_forwarded()
        assert relay.stats()["total_ticks"] == 5
    finally:
        assert relay.stop() == 0
        relay.close()
    assert list(dict.fromkeys(item["ts_msc"] - BASE for item in server.taken)) == list(range(5))
    said = log.read_text()
    assert "error" not in said
    assert said.count("forward_waits") <= 1
