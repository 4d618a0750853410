"""Deletes rows that the server confirmed long ago. An archive that was there before the relay is not deleted from."""

import math
import time
from typing import Final

import structlog

from relay.database import StoreUnavailable, is_created_here
from relay.pending import FORWARD
from relay.store import Store

log = structlog.get_logger(__name__)

#: How long confirmed rows stay in a file that the relay created (seconds).
_DEFAULT_SECONDS: Final = 7 * 86_400.0

#: How often old rows are deleted (seconds).
_EVERY_SECONDS: Final = 60.0

#: Rows deleted in one transaction: the EA waits for no more than that.
_STEP_ROWS: Final = 2_000


class Retention:
    """How long the rows of a store stay after the server has confirmed them.

    Args:
        store: the rows.
        seconds: running time of the relay after the confirmation, or infinity. None leaves it to the file: seven days
            in one that the relay created, for ever in one that was there before.
    """

    def __init__(self, store: Store, seconds: float | None = None) -> None:
        self._store = store
        self._is_archive = seconds is None and not is_created_here(store.connection)
        default = math.inf if self._is_archive else _DEFAULT_SECONDS
        self.seconds = default if seconds is None else seconds
        self._deleted_at = -math.inf

    def plan(self) -> str:
        """What will be deleted and when, for the log of a start."""
        if self._is_archive:
            return "No row is deleted: the file was there before the relay. --keep 7d asks for it."
        if math.isinf(self.seconds):
            return "No row is deleted (--keep forever)."
        plan = f"Rows are deleted {_spoken(self.seconds)} after the server has confirmed them"
        connection = self._store.connection
        first_at, before_id = connection.execute(
            "SELECT min(confirmed_at), max(next_id) FROM confirmed WHERE name = ?", [FORWARD]
        ).fetchone()
        if before_id is None:
            return f"{plan}; of those in the file none is confirmed yet."
        (rows,) = connection.execute("SELECT count(*) FROM ticks WHERE id < ?", [before_id]).fetchone()
        first = max(0.0, first_at + self.seconds - self._store.ran_seconds())
        return f"{plan}: {rows:,} of those in the file, the first of them in {_spoken(first)}."

    def delete_due(self) -> int:
        """Delete what is due, at most once a minute; how many rows."""
        if math.isinf(self.seconds) or time.monotonic() - self._deleted_at < _EVERY_SECONDS:
            return 0
        self._deleted_at = time.monotonic()
        try:
            deleted = delete_old(self._store, self.seconds)
        except StoreUnavailable:
            return 0  # the store has reported it; the next minute is as good
        if deleted:
            log.info(f"{deleted:,} confirmed rows were old and are deleted.", action="store_deleted", rows=deleted)
        return deleted


def delete_old(store: Store, retention_seconds: float, name: str = FORWARD) -> int:
    """Delete rows confirmed more than `retention_seconds` of running time ago, in small steps; returns how many."""
    before_id = store.connection.execute(
        "SELECT max(next_id) FROM confirmed WHERE name = ? AND confirmed_at < ?",
        [name, store.ran_seconds() - retention_seconds],
    ).fetchone()[0]
    if before_id is None:
        return 0
    deleted = 0
    step = "DELETE FROM ticks WHERE id IN (SELECT id FROM ticks WHERE id < ? ORDER BY id LIMIT ?)"
    while True:
        count = store.run(lambda connection: connection.execute(step, [before_id, _STEP_ROWS]).rowcount)
        deleted += count
        if count < _STEP_ROWS:
            break
    store.run(
        lambda connection: connection.execute("DELETE FROM confirmed WHERE name = ? AND next_id < ?", [name, before_id])
    )
    return deleted


def _spoken(seconds: float) -> str:
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= size:
            count = f"{seconds / size:.3g}"
            return f"{count} {unit}{'' if count == '1' else 's'}"
    return f"{seconds:.0f} seconds"
