"""How far the sinks have stored what they read: stored with the rows, so that each copy of the database has its own.

The row of a partition says that all records below its offset are in this database or in `candles.rejected`. So it moves
only over records that were read from there or from before, together with their rows, and never backwards. Kafka's
committed offset says no such thing: it belongs to a group, whatever database the group's members write to.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from aiokafka import TopicPartition

from marketdata.errors import ProgressLost
from sink.db.connection import Connection
from sink.db.statements import SQL

log = structlog.get_logger(__name__)


class Span(NamedTuple):
    """A part of a partition that was read: every record from offset `first` up to `next`, which is not included."""

    log: str
    partition: int
    first: int
    next: int


@dataclass(frozen=True)
class Bounds:
    """What Kafka tells of a partition at its assignment."""

    log: str
    #: First record that is left, and the offset that the next record gets.
    first: int
    end: int
    committed: int | None


@dataclass(frozen=True)
class Start:
    """Where the reading of a partition begins."""

    offset: int
    #: Records that were deleted from the log before this database had them.
    unseen: int


async def advance(connection: Connection, spans: Collection[Span]) -> None:
    """Move the progress over `spans`, in the caller's transaction, if there is one; the same again changes nothing.

    Raises:
        ProgressLost: when the database ends before a span begins. It was restored or failed over to an older state.
    """
    if not spans:
        return
    logs, partitions, firsts, nexts = (list(column) for column in zip(*sorted(spans), strict=True))
    about = {"logs": logs, "partitions": partitions, "firsts": firsts, "nexts": nexts}
    behind = await (await connection.execute(SQL["advance_progress"], about)).fetchall()
    if behind:
        raise ProgressLost(
            "the database ends before what was read begins: "
            + ", ".join(f"{name} partition {partition}" for name, partition in behind)
        )


async def find_starts(connection: Connection, bounds: Mapping[TopicPartition, Bounds]) -> dict[TopicPartition, Start]:
    """Where to begin: at the smaller of progress and committed offset, or at the first record if there is no progress.

    The progress moves up to the first record that is left, and back to it when the log ends before the progress.
    """
    starts: dict[TopicPartition, Start] = {}
    differing: list[str] = []
    async with connection.transaction():
        for tp, found in sorted(bounds.items()):
            progress = await _stored_progress(connection, found.log, tp.partition)
            starts[tp] = start = _start(progress, found)
            if progress is None or not found.first <= progress <= found.end:
                await connection.execute(
                    SQL["set_progress"], {"log": found.log, "partition": tp.partition, "next": found.first}
                )
            # A partition that nothing was read of is as far as one that was read up to its first record.
            if _or_first(progress, found) != _or_first(found.committed, found):
                stored, committed = ("nothing" if offset is None else offset for offset in (progress, found.committed))
                differing.append(
                    f"{tp.topic}-{tp.partition}: database {stored}, Kafka {committed}, begins at {start.offset}"
                )
    if differing:
        log.warning(
            "The database and Kafka differ on how far records were stored; reading begins at the smaller offset.",
            action="progress_differs", partitions=differing,
        )  # fmt: skip
    return starts


async def _stored_progress(connection: Connection, log_name: str, partition: int) -> int | None:
    about = {"log": log_name, "partition": partition}
    row = await (await connection.execute(SQL["stored_progress"], about)).fetchone()
    return None if row is None else int(row[0])


def _start(progress: int | None, found: Bounds) -> Start:
    reached = found.committed if progress is None else progress
    unseen = max(0, found.first - reached) if reached is not None else 0
    if progress is None or progress > found.end:
        # Offsets beyond the end will be given to other records.
        return Start(found.first, unseen)
    known = progress if found.committed is None else min(progress, found.committed)
    return Start(max(known, found.first), unseen)


def _or_first(offset: int | None, found: Bounds) -> int:
    return found.first if offset is None else offset
