"""The database: nothing is lost, whatever the file, the disk or another program does."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from relay.database import StoreUnavailable, StoreUnusable
from relay.pending import Pending, count_pending, delete_old
from relay.store import Store
from tests.unit.relay.rows import BASE, put, tick

OLD = """CREATE TABLE ticks (id INTEGER PRIMARY KEY, symbol TEXT, ts_ms INTEGER, timeframe TEXT, open REAL, high REAL,
 low REAL, close REAL, volume REAL, kind TEXT, meta TEXT, created_at TEXT DEFAULT CURRENT_TIMESTAMP,
 UNIQUE(symbol, ts_ms))"""


def old_file(path: Path, rows: int, table: str = OLD) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(table)
        connection.executemany(
            "INSERT INTO ticks (id, symbol, ts_ms) VALUES (?, ?, ?)",
            [(3 * n + 7, "EURUSD", BASE + n) for n in range(rows)],
        )


async def test_an_old_file_keeps_its_rows_and_no_longer_drops_ticks(tmp_path: Path) -> None:
    path = tmp_path / "ea.db"
    old_file(path, 1_000)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE INDEX by_time ON ticks (ts_ms)")
    with capture_logs() as logs, Store(path) as store:
        await put(store, tick(0), tick(0))
        rows = store.connection.execute("SELECT id, symbol, ts_ms FROM ticks ORDER BY id").fetchall()
        names = {name for (name,) in store.connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert rows[:1_000] == [(3 * n + 7, "EURUSD", BASE + n) for n in range(1_000)]
    assert [row[1:] for row in rows[1_000:]] == [("EURUSD", BASE)] * 2
    assert "by_time" in names
    assert [line["action"] for line in logs] == ["store_rebuild", "store_rebuilt"]

    with capture_logs() as logs, Store(path) as store:
        assert store.counts().by_symbol == {"EURUSD": 1_002}
    assert logs == []


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE ticks (id INTEGER PRIMARY KEY, symbol TEXT, ts_ms INTEGER)",
        "CREATE TABLE ticks (id TEXT, symbol TEXT, ts_ms INTEGER, UNIQUE(symbol, ts_ms))",
        "CREATE TABLE ticks (symbol TEXT, ts_ms INTEGER, PRIMARY KEY(symbol, ts_ms))",
    ],
)
async def test_a_file_without_columns_gets_them(tmp_path: Path, table: str) -> None:
    path = tmp_path / "ea.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(table)
        connection.execute("INSERT INTO ticks (symbol, ts_ms) VALUES ('EURUSD', ?)", [BASE])
    with Store(path) as store:
        await put(store, tick(0))
        kinds = store.connection.execute("SELECT id, symbol, ts_ms, timeframe, kind FROM ticks ORDER BY id").fetchall()
    assert kinds == [(1, "EURUSD", BASE, "tick", "tick"), (2, "EURUSD", BASE, "tick", "tick")]


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ea.db"
    path.write_bytes(b"no database at all, but long enough to be read as one" * 20)
    with pytest.raises(StoreUnusable, match="no SQLite database"):
        Store(path)
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection, connection:
        connection.execute("CREATE TABLE ticks (price REAL)")
    with pytest.raises(StoreUnusable, match="no column symbol and ts_ms"):
        Store(other)


async def test_requests_that_wait_share_a_commit_and_each_has_a_time_of_its_own(store: Store) -> None:
    await asyncio.gather(*(put(store, tick(n), tick(n)) for n in range(500)))
    assert store.counts().by_symbol.total() == 1_000
    assert store.commits < 500
    (times,) = store.connection.execute("SELECT count(DISTINCT created_at) FROM ticks").fetchone()
    assert times == 500


async def test_a_full_disk_is_told_once_and_survived(store: Store) -> None:
    await put(store, tick(0))
    (pages,) = store.connection.execute("PRAGMA page_count").fetchone()
    store.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 1}"))
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="disk is full") as caught:
                await put(store, *(tick(n) for n in range(1_000)))
            assert caught.value.retry_after_seconds == 10
        store.run(lambda connection: connection.execute("PRAGMA max_page_count = 1000000"))
        await put(store, tick(1))
    assert [line["action"] for line in logs] == ["store_failing", "store_recovered"]
    assert store.counts().by_symbol.total() == 2


async def test_a_locked_database_is_survived(store: Store) -> None:
    with closing(sqlite3.connect(store.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="lock"):
            await put(store, tick(0))
        other.execute("ROLLBACK")
    await put(store, tick(0))
    assert store.counts().by_symbol.total() == 1


async def test_one_bad_job_does_not_spoil_its_group(store: Store) -> None:
    def fail(_: sqlite3.Connection) -> None:
        raise ValueError("mine")

    results = await asyncio.gather(
        asyncio.to_thread(store.run, fail), *(put(store, tick(n)) for n in range(20)), return_exceptions=True
    )
    assert isinstance(results[0], ValueError)
    assert results[1:] == [None] * 20


async def test_old_rows_are_deleted_after_confirmation_only(store: Store) -> None:
    await put(store, *(tick(n) for n in range(5_000)))
    assert delete_old(store, retention_seconds=-1) == 0
    pending = Pending(store, limit=3_000)
    pending.next_request()
    assert count_pending(store.connection) == 5_000
    # One request that is larger than a batch: cut at 3,000.
    pending.confirm()
    assert count_pending(store.connection) == 2_000
    assert delete_old(store, retention_seconds=3_600) == 0
    assert delete_old(store, retention_seconds=-1) == 3_000
    assert store.counts().by_symbol.total() == 2_000
    assert delete_old(store, retention_seconds=-1) == 0


async def test_requests_stay_apart_when_the_clock_was_put_back_while_the_relay_was_down(tmp_path: Path) -> None:
    path = tmp_path / "ea.db"
    ahead = (datetime.now(UTC) + timedelta(seconds=0.9)).replace(tzinfo=None).isoformat(" ", "microseconds")
    with Store(path) as store:
        await put(store, tick(0))
        store.run(lambda connection: connection.execute("UPDATE ticks SET created_at = ?", [ahead]))
    with Store(path) as store:
        await put(store, tick(0))
        stamps = [row[0] for row in store.connection.execute("SELECT created_at FROM ticks ORDER BY id")]
    assert stamps[0] < stamps[1]


async def test_the_relays_own_clock_goes_on_after_a_restart(store: Store) -> None:
    await put(store, tick(0))
    store.run(lambda connection: connection.execute("INSERT INTO confirmed VALUES ('forward', 1, 1000.0)"))
    with Store(store.path) as reopened:
        first = reopened.ran_seconds()
        assert first >= 1_000
        assert reopened.ran_seconds() > first


async def test_ids_are_never_given_twice(store: Store) -> None:
    await put(store, tick(0))
    store.run(lambda connection: connection.execute("DELETE FROM ticks"))
    await put(store, tick(1))
    assert store.connection.execute("SELECT id FROM ticks").fetchall() == [(2,)]
