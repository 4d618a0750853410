"""Which rows may be deleted, and what the start says about it."""

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from relay.forwarder import Retention, delete_old
from relay.pending import Pending, count_pending
from relay.store import Store
from tests.unit.relay.rows import BASE, put, tick


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


def confirm_all(store: Store) -> None:
    pending = Pending(store, limit=5_000)
    while pending.next_request():
        pending.confirm()


def archive(path: Path, rows: int) -> Path:
    """A file of another program."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE ticks (id INTEGER PRIMARY KEY, symbol TEXT, ts_ms INTEGER)")
        connection.executemany(
            "INSERT INTO ticks (symbol, ts_ms) VALUES ('EURUSD', ?)", [(BASE + n,) for n in range(rows)]
        )
    return path


def ran_for_years(store: Store) -> None:
    """As if the relay had been running all the time since its rows were confirmed."""
    store.run(lambda connection: connection.execute("UPDATE confirmed SET confirmed_at = confirmed_at - 1e8"))


@pytest.mark.parametrize("keep", [None, math.inf], ids=["by default", "forever"])
async def test_a_file_that_was_there_before_is_not_deleted_from(tmp_path: Path, keep: float | None) -> None:
    path = archive(tmp_path / "ea.db", 100)
    for _ in range(2):  # the second start finds the tables of the first
        with Store(path) as store:
            await put(store, tick(0))
            confirm_all(store)
            ran_for_years(store)
            retention = Retention(store, keep)
            assert retention.plan().startswith("No row is deleted")
            assert retention.delete_due() == 0
    with Store(path) as store:
        assert store.counts().by_symbol.total() == 102


async def test_a_file_that_was_there_before_is_deleted_from_when_asked_for(tmp_path: Path) -> None:
    with Store(archive(tmp_path / "ea.db", 100)) as store:
        assert Retention(store, 3_600).plan() == (
            "Rows are deleted 1 hour after the server has confirmed them; of those in the file none is confirmed yet."
        )
        confirm_all(store)
        assert "up to 100 of those in the file, the first of them in" in Retention(store, 3_600).plan()
        ran_for_years(store)
        assert Retention(store, 3_600).delete_due() == 100


async def test_a_file_of_the_relays_own_is_deleted_from_after_a_week(tmp_path: Path) -> None:
    with Store(tmp_path / "ea.db") as store:
        await put(store, tick(0))
        confirm_all(store)
    with Store(tmp_path / "ea.db") as store:
        assert Retention(store).seconds == 7 * 86_400
        assert Retention(store).delete_due() == 0
        ran_for_years(store)
        assert "up to 1 of those in the file, the first of them in 0 seconds" in Retention(store).plan()
        assert Retention(store).delete_due() == 1


async def test_new_ticks_do_not_wait_until_a_day_of_old_ones_is_deleted(tmp_path: Path) -> None:
    with Store(tmp_path / "ea.db") as store:
        await put(store, *(tick(n) for n in range(24_000)))
        store.run(lambda connection: connection.execute("INSERT INTO confirmed VALUES ('forward', 24001, 0)"))
        ran_for_years(store)
        retention = Retention(store)
        with capture_logs() as logs:
            # The forwarder sends between two of these.
            turns = [retention.delete_due() for _ in range(5)]
        assert turns == [10_000, 10_000, 4_000, 0, 0]
        assert [line["rows"] for line in logs] == [24_000]
        assert store.counts().by_symbol.total() == 0


async def test_an_empty_file_is_the_relays_own_and_a_database_of_others_is_not(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection, connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    with Store(tmp_path / "empty.db") as empty, Store(tmp_path / "other.db") as other:
        assert (Retention(empty).seconds, Retention(other).seconds) == (7 * 86_400, math.inf)
