"""Which rows may be deleted."""

from relay.pending import Pending, count_pending, delete_old
from relay.store import Store
from tests.unit.relay.rows import put, tick


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
