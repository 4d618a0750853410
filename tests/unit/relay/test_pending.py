"""How much waits, and since when."""

import sqlite3
from datetime import UTC, datetime, timedelta

from relay.pending import Backlog, Pending, count_pending, restart
from relay.store import Store
from tests.unit.relay.rows import put, tick
from tests.unit.relay.test_store import rows_read


async def test_the_backlog_is_counted_as_it_grows_and_drains(store: Store) -> None:
    backlog = Backlog(store)
    assert backlog.rows() == 0
    pending = Pending(store, limit=30)
    for step in range(8):
        await put(store, *(tick(step * 100 + n) for n in range(20)))
        assert backlog.rows() == count_pending(store.connection)
        if step % 3 == 2:
            pending.next_request()
            pending.confirm()
            assert backlog.rows() == count_pending(store.connection)
    while pending.next_request():
        pending.confirm()
    assert backlog.rows() == 0
    restart(store, "forward")
    assert backlog.rows() == 160


async def test_a_look_at_a_backlog_that_drains_counts_what_was_sent_alone(store: Store) -> None:
    backlog, pending = Backlog(store), Pending(store, limit=100)
    await put(store, *(tick(n) for n in range(20_000)))
    assert rows_read(store, backlog.rows) > 20
    for _ in range(10):
        pending.next_request()
        pending.confirm()
        await put(store, tick(0))
        assert rows_read(store, backlog.rows) < 5
        assert backlog.rows() == count_pending(store.connection)
    store.delete_before(501, 1_000)
    assert backlog.rows() == count_pending(store.connection)


async def test_what_was_deleted_as_soon_as_it_was_sent_does_not_wait(store: Store) -> None:
    backlog, pending = Backlog(store), Pending(store, limit=100)
    await put(store, *(tick(n) for n in range(1_000)))
    assert backlog.rows() == 1_000
    pending.next_request()
    pending.confirm()
    store.delete_before(51, 1_000)
    assert backlog.rows() == count_pending(store.connection) == 900


async def test_the_oldest_row_that_waits_tells_since_when(store: Store) -> None:
    backlog = Backlog(store)
    assert backlog.oldest_seconds() == 0.0
    await put(store, tick(0, "EURUSD"))
    await put(store, tick(0, "USDJPY"))

    def age(connection: sqlite3.Connection) -> None:
        for id_, hours in ((1, 5), (2, 2)):
            stored = (datetime.now(UTC) - timedelta(hours=hours)).replace(tzinfo=None).isoformat(" ")
            connection.execute("UPDATE ticks SET created_at = ? WHERE id = ?", [stored, id_])

    store.run(age)
    assert 5 * 3_600 <= backlog.oldest_seconds() < 5 * 3_600 + 60
    pending = Pending(store, limit=1)
    pending.next_request()
    pending.confirm()
    assert 2 * 3_600 <= backlog.oldest_seconds() < 2 * 3_600 + 60
    store.run(lambda connection: connection.execute("UPDATE ticks SET created_at = NULL"))
    assert backlog.oldest_seconds() == 0.0
