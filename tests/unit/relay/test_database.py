"""Files of older programs and of other ones: no row is lost, and no id is given twice."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from relay.database import StoreUnusable
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


async def test_ids_are_never_given_twice(store: Store) -> None:
    await put(store, tick(0))
    store.run(lambda connection: connection.execute("DELETE FROM ticks"))
    await put(store, tick(1))
    assert store.connection.execute("SELECT id FROM ticks").fetchall() == [(2,)]
