"""The writing thread: nothing is lost, whatever the disk, the clock or another program does."""

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from relay.database import StoreUnavailable
from relay.store import Store
from tests.unit.relay.rows import put, tick


async def test_requests_that_wait_share_a_commit_and_each_has_a_time_of_its_own(store: Store) -> None:
    await asyncio.gather(*(put(store, tick(n), tick(n)) for n in range(500)))
    assert store.counts().by_symbol.total() == 1_000
    assert store.commits < 500
    (times,) = store.connection.execute("SELECT count(DISTINCT created_at) FROM ticks").fetchone()
    assert times == 500


async def test_a_body_of_more_rows_than_may_wait_is_taken_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.store._MAX_WAITING_ROWS", 10)
    large = asyncio.create_task(put(store, *(tick(n) for n in range(11))))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="keep up"):
        await put(store, tick(0))
    await large
    await put(store, tick(0))
    assert store.counts().by_symbol.total() == 12


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


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
async def test_the_file_and_its_side_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "ea.db"
    before = os.umask(0)
    try:
        first = Store(path)
        await put(first, tick(0))
        found = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}
        assert found == {"ea.db": 0o600, "ea.db-wal": 0o600, "ea.db-shm": 0o600}
        first.close()
        # One that an older version made.
        path.chmod(0o644)
        Store(path).close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def rows_read(store: Store, look: Callable[[], object]) -> int:
    """About how many thousands of SQLite's steps a look takes in this thread; a row takes several."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    store.connection.set_progress_handler(count, 1_000)
    look()
    store.connection.set_progress_handler(None, 0)
    return steps


async def test_a_look_at_a_large_file_reads_what_is_new_alone(store: Store) -> None:
    await put(store, *(tick(n, "EURUSD" if n % 2 else "PETR4") for n in range(20_000)))
    assert rows_read(store, store.counts) > 50
    assert rows_read(store, store.counts) < 5

    await put(store, tick(20_000))
    assert store.delete_before(9_001, 5_000) == 5_000
    assert store.delete_before(9_001, 5_000) == 4_000
    assert rows_read(store, store.counts) < 5
    counts = store.counts()
    assert counts.by_symbol == {"EURUSD": 5_501, "PETR4": 5_500}
    assert (counts.first_id, counts.newest) == (9_001, {"EURUSD": 20_001, "PETR4": 19_999})


async def test_rows_that_another_program_deleted_are_noticed(store: Store) -> None:
    await put(store, *(tick(n) for n in range(100)))
    assert store.counts().by_symbol.total() == 100
    store.run(lambda connection: connection.execute("DELETE FROM ticks WHERE id <= 10"))
    store.delete_before(21, 1_000)
    assert store.counts().by_symbol.total() == 80


async def test_a_symbol_whose_last_row_was_deleted_is_gone(store: Store) -> None:
    await put(store, tick(0, "OLD"), *(tick(n) for n in range(1, 100)))
    store.counts()
    store.delete_before(11, 1_000)
    assert (store.counts().by_symbol, store.counts().newest) == ({"EURUSD": 90}, {"EURUSD": 100})
