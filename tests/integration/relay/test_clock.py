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
