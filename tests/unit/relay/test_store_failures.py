"""Whatever happens to the writing thread, nobody waits for ever, and the relay does not look well without it."""

import asyncio
import json
import math
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from relay.api import Api
from relay.back_channel import FillCounts
from relay.database import StoreUnavailable
from relay.forwarder import Forwarder, Retention
from relay.pending import Pending
from relay.server import Server
from relay.service import _forward
from relay.status import Status
from relay.store import Store
from runtime.health import Guard, Health
from runtime.process import EXIT_FAILED
from runtime.settings import load_settings
from tests.ports import free_port
from tests.scripted import ScriptedServer
from tests.unit.relay.rows import BASE, put, tick
from tests.unit.relay.test_api import call
from tests.waiting import PATIENCE_SECONDS, wait_until


class _Stubborn(sqlite3.Connection):
    """A connection that cannot undo a transaction, as on a disk that fails."""

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "ROLLBACK":
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, *parameters)


@pytest.fixture
def stubborn_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=_Stubborn, **options))
    with Store(tmp_path / "ea.db", busy_seconds=0.2) as store:
        yield store


def _spoil(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO ticks (symbol, ts_ms) VALUES ('HALF', 1)")
    raise ValueError("a bug in the middle of a transaction")


async def test_a_rollback_that_fails_is_survived_and_nothing_half_is_stored(stubborn_store: Store) -> None:
    store = stubborn_store
    await put(store, tick(0))
    with capture_logs() as logs, pytest.raises(ValueError, match="a bug"):
        await asyncio.wait_for(asyncio.to_thread(store.run, _spoil), PATIENCE_SECONDS)
    assert "store_rollback_failed" in [line["action"] for line in logs]

    await asyncio.wait_for(put(store, tick(1)), PATIENCE_SECONDS)
    assert list(store.counts().by_symbol) == ["EURUSD"]
    assert store.counts().by_symbol.total() == 2


@pytest.fixture
def ended() -> list[str]:
    """Grows when the guard ends the process."""
    return []


async def test_the_end_of_the_writing_thread_is_told_to_all_who_wait(tmp_path: Path, ended: list[str]) -> None:
    # Arrange: a thread that dies of what it does after a commit
    health = Health()
    with Store(tmp_path / "ea.db", guard=Guard(health, end=lambda: ended.append("process"))) as store:
        api = Api(store, load_settings(), health=health)
        await put(store, tick(0))

        def fail() -> None:
            raise MemoryError("no memory")

        store.on_insert = fail

        # Act: the first is stored, for the thread died afterwards; the others come too late
        waiting = [put(store, tick(n)) for n in range(1, 50)]
        outcomes = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), PATIENCE_SECONDS)
        late = await asyncio.wait_for(asyncio.gather(put(store, tick(50)), return_exceptions=True), PATIENCE_SECONDS)
        with pytest.raises(StoreUnavailable, match="no memory"):
            await asyncio.wait_for(asyncio.to_thread(store.run, lambda connection: connection), PATIENCE_SECONDS)

        # Assert: who was told that his ticks are stored finds them
        stored = store.counts().by_symbol.total()
        assert 1 + sum(outcome is None for outcome in outcomes) == stored
        assert isinstance(late[0], StoreUnavailable)
        status, answer, _ = await asyncio.to_thread(call, api, path="/health", method="GET")
        assert (status, answer) == (503, {"ok": False, "failed": {"store": "MemoryError: no memory"}})
        status, answer, _ = await asyncio.to_thread(call, api, json.dumps(tick_body()).encode())
        assert (status, answer["code"]) == (503, "STORE_UNAVAILABLE")
    assert ended == ["process"]


def tick_body() -> dict[str, Any]:
    return {"ticks": [{"symbol": "EURUSD", "time_msc": 1_760_926_800_417, "bid": 1.1, "ask": 1.2}]}


@pytest.mark.parametrize("part", ["store", "forwarder"])
def test_a_relay_whose_thread_fails_ends_with_another_code_than_0(tmp_path: Path, part: str) -> None:
    code = f"""
        import threading
        import relay.service as service
        from pathlib import Path
        from relay.server import Server
        from relay.store import Store
        from runtime.settings import load_settings

        class Broken(Store):
            def __init__(self, *arguments, **options):
                super().__init__(*arguments, **options)
                threading.Timer(1.0, self.run, [lambda connection: None]).start()

            def _commit(self, group):
                raise MemoryError("no memory")

        def fail(*_):
            raise MemoryError("no memory")

        if {part!r} == "store":
            service.Store = Broken
        else:
            service._forward = fail
        code = service.serve(
            load_settings(), Path({str(tmp_path / "ea.db")!r}), host="127.0.0.1", port={free_port()},
            server=Server("http://127.0.0.1:9", "key"), retention_seconds=None,
        )
        raise SystemExit(code)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        timeout=PATIENCE_SECONDS,
        check=False,
        env=os.environ,
    )
    assert done.returncode == EXIT_FAILED, done.stderr.decode()
    assert b"part_failed" in done.stdout + done.stderr


#: Of each damaged file's rows, so many are in one request.
_ROWS = 200


def _damage(path: Path, *pages: int, noise: bytes = bytes(range(256)) * 16) -> None:
    """Overwrite pages of the file, counted from its middle."""
    middle = path.stat().st_size // 2 // 4_096
    with path.open("r+b") as file:
        for page in pages:
            file.seek((middle + page) * 4_096)
            file.write(noise)


@pytest.mark.parametrize("pages", [(0,), (0, 1, 2), (0, 2, 5, 6), range(-3, 4)], ids=str)
async def test_all_but_the_rows_of_damaged_pages_are_forwarded_and_those_are_named_once(
    tmp_path: Path, server: ScriptedServer, pages: Sequence[int]
) -> None:
    path = tmp_path / "ea.db"
    with Store(path) as store:
        for n in range(40):
            await put(store, *(tick(_ROWS * n + k) for k in range(_ROWS)))
    _damage(path, *pages)
    stop = threading.Event()
    with capture_logs() as logs, Store(path) as store, Server(server.url, "key") as receiver:
        forwarder = Forwarder(store, receiver, Pending(store, limit=1_000), stop=stop)
        thread = threading.Thread(target=_forward, args=(forwarder, store, stop))
        thread.start()
        await put(store, tick(_ROWS * 40))
        try:
            await asyncio.to_thread(
                wait_until, lambda: BASE + _ROWS * 40 in {item["ts_msc"] for item in server.taken}, what="the newest"
            )
        finally:
            stop.set()
            forwarder.wake.set()
            thread.join()
        # Ids count from 1; a tick's time is its id less 1.
        sent = [item["ts_msc"] - BASE + 1 for item in server.taken]
        named = [(line["id"], line["rows"]) for line in logs if line["action"] == "rows_damaged"]
        lost = [id_ for first, rows in named for id_ in range(first, first + rows)]
        api = Api(store, load_settings(), totals=forwarder.totals, server_url=server.url)
        status, health, _ = await asyncio.to_thread(call, api, path="/health", method="GET")
        page = (await asyncio.to_thread(Status(store, forwarder.totals, Health(), FillCounts()).page, "en")).decode()
        reasons = store.connection.execute("SELECT id, reason FROM rejected ORDER BY id").fetchall()
    assert sorted(sent + lost) == list(range(1, _ROWS * 40 + 2))
    # A page of 4 kB holds some ten to twenty rows.
    assert 0 < len(lost) <= 40 * len(pages)
    assert [id_ for id_, _ in reasons] == [first for first, _ in named]
    assert "is damaged" in reasons[0][1]
    assert (status, health["ok"], health["total_ticks"], health["queue"]) == (200, True, len(sent), 0)
    assert f"The rows {named[-1][0]}" in page


async def test_nothing_is_deleted_from_a_damaged_page(tmp_path: Path) -> None:
    path = tmp_path / "ea.db"
    with Store(path) as store:
        for n in range(40):
            await put(store, *(tick(_ROWS * n + k) for k in range(_ROWS)))
        store.run(lambda connection: connection.execute("INSERT INTO confirmed VALUES ('forward', 8001, 0)"))
    _damage(path, 0)
    with capture_logs() as logs, Store(path) as store:
        retention = Retention(store, 0.0)
        retention.delete_due()
        retention._deleted_at = -math.inf
        retention.delete_due()
        await put(store, tick(_ROWS * 40))
    assert [line["action"] for line in logs] == ["store_undeletable"]
