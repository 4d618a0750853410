"""Stores reference data: who sends, and how instruments are quoted."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from msgspec.structs import asdict
from psycopg import AsyncConnection
from psycopg.rows import class_row

from marketdata.reference import Reference, SenderCount
from marketdata.wire import reference_key
from sink.db.statements import SQL
from sink.staging import utc

#: How long a count is retained after the last request in it (days). Every start of a producer begins another, and
#: whoever has a key may invent names: without an end the table would only grow.
_RETAINED_DAYS: Final = 90

_BEGINNING = datetime(1, 1, 1, tzinfo=UTC)


async def apply_reference(connection: AsyncConnection[Any], records: Sequence[Reference]) -> int:
    """Store what is newer than the rows, inside the caller's transaction; returns how many rows changed.

    Records may come again and in any order.
    """
    # In one order, or two sinks would wait for each other's rows.
    ordered = sorted(records, key=reference_key)
    changed = 0
    for record in ordered:
        if isinstance(record, SenderCount):
            times = {"first_seen": utc(record.first_seen), "last_seen": utc(record.last_seen)}
            about = asdict(record) | times | {"retained_days": _RETAINED_DAYS}
            cursor = await connection.execute(SQL["apply_sender_count"], about)
        else:
            about = asdict(record) | {"received": utc(record.received)}
            cursor = await connection.execute(SQL["apply_instrument"], about)
        changed += cursor.rowcount
    if any(isinstance(record, SenderCount) for record in ordered):
        await connection.execute(SQL["forget_sender_counts"], {"retained_days": _RETAINED_DAYS})
    return changed


class SenderRow(NamedTuple):
    """One sender; None where it says nothing."""

    source: str
    server: str | None
    account: str | None
    build: str | None
    ea: str | None
    version: str | None
    address: str | None
    #: By receipt.
    first_seen: datetime
    last_seen: datetime
    ticks: int
    bars: int
    #: What the senders of its source differ in within the hour: `servers`, `accounts`, both, or None.
    shared: str | None


async def read_senders(connection: AsyncConnection[Any], since: datetime = _BEGINNING) -> list[SenderRow]:
    """The senders that were seen since then, the latest first."""
    async with connection.cursor(row_factory=class_row(SenderRow)) as cursor:
        await cursor.execute(SQL["senders"], {"since": since})
        return await cursor.fetchall()
