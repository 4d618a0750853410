"""Stores reference data: who sends, and how instruments are quoted."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from msgspec.structs import asdict
from psycopg import AsyncConnection
from psycopg.rows import class_row

from marketdata.reference import Reference, SenderCount
from marketdata.wire import reference_key
from sink.db.statements import SQL
from sink.staging import utc

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
            cursor = await connection.execute(SQL["apply_sender_count"], asdict(record) | times)
        else:
            about = asdict(record) | {"received": utc(record.received)}
            cursor = await connection.execute(SQL["apply_instrument"], about)
        changed += cursor.rowcount
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
