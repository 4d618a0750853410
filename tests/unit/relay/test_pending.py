"""How much waits, and since when."""

import sqlite3
from datetime import UTC, datetime, timedelta

from relay.pending import Backlog, Pending, count_pending, restart
from relay.store import Store
from tests.unit.relay.rows import put, tick


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
