"""How far the sinks have stored what they read: stored with the rows, so that each copy of the database has its own.

The row of a partition says that all records below its offset are in this database or in `candles.rejected`. So it moves
only over records that were read from there or from before, together with their rows, and never backwards. Kafka's
committed offset says no such thing: it belongs to a group, whatever database the group's members write to.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from tenacity import AsyncRetrying, retry_if_exception, wait_exponential

from marketdata.errors import MissedRecords, PartitionsLost, ProgressLost, TickpipeError
from marketdata.runs import Record
from runtime.health import Health
from runtime.kafka import Ends
from runtime.kafka_errors import is_retriable, kafka_errors
from runtime.logreader import LogReader, log_name
from runtime.service import PeriodicTask
from runtime.settings import Settings
from sink.db.connection import Connection, Database
from sink.db.session import SQL, database_conninfo, open_session
from sink.metrics import Metrics

log = structlog.get_logger(__name__)

#: How often the database is asked whether the sink has caught up (seconds).
_ASK_SECONDS: Final = 0.1


class Span(NamedTuple):
    """A part of a partition that was read: every record from offset `first` up to `next`, which is not included."""

    log: str
    partition: int
    first: int
    next: int


@dataclass(frozen=True)
class Bounds:
    """What Kafka reports about a partition when it is assigned."""

    log: str
    #: Offset of the first record still in the log, and of the next to be written.
    first: int
    end: int
    committed: int | None


@dataclass(frozen=True)
class Start:
    """Where reading of a partition begins."""

    offset: int
    #: Records that the log deleted before this database had stored them.
    unseen: int


def span_columns(spans: Collection[Span]) -> dict[str, list[Any]]:
    """What the statements take that move the progress."""
    ordered = sorted(spans)
    return {
        "logs": [span.log for span in ordered], "partitions": [span.partition for span in ordered],
        "firsts": [span.first for span in ordered], "nexts": [span.next for span in ordered],
    }  # fmt: skip


async def advance(connection: Connection, spans: Collection[Span]) -> None:
    """Advance the progress over `spans`, in the caller's transaction if there is one; idempotent.

    Raises:
        ProgressLost: when the database ends before a span begins. It was restored or failed over to an older state.
    """
    if not spans:
        return
    behind = await (await connection.execute(SQL["advance_progress"], span_columns(spans))).fetchall()
    if behind:
        raise ProgressLost(
            "the database ends before what was read begins: "
            + ", ".join(f"{name} partition {partition}" for name, partition in behind)
        )


async def reached_offsets(connection: Connection, log_name: str) -> dict[int, int]:
    """The progress of each partition of a log; a partition without progress is missing."""
    return dict(await (await connection.execute(SQL["sink_reached"], {"log": log_name})).fetchall())


async def wait_until_stored(
    ask: Callable[[], Awaitable[Mapping[int, int]]], published: Ends, *, timeout_seconds: float
) -> bool:
    """Wait until every record below the ends in `published` is stored; returns whether that happened in time.

    `ask` returns the progress, as `reached_offsets` does.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        reached = await ask()
        if all(end <= max(first, reached.get(partition, 0)) for partition, (first, end) in published.items()):
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_ASK_SECONDS)


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
            # A partition of which nothing was read counts as read up to its first record.
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
        # Other records will get the offsets beyond the end.
        return Start(found.first, unseen)
    known = progress if found.committed is None else min(progress, found.committed)
    return Start(max(known, found.first), unseen)


def _or_first(offset: int | None, found: Bounds) -> int:
    return found.first if offset is None else offset


#: Kafka answers with committed offsets in milliseconds; later means that it is away (seconds).
_COMMITTED_SECONDS: Final = 5.0

#: What the name of a group of sinks begins with by default; the id of their database follows.
SINK_GROUP_PREFIX: Final = "tickpipe-sink-"

#: For asking the database its id (seconds).
_CONNECT_SECONDS: Final = 10


async def with_sink_group(settings: Settings, url: str = "") -> Settings:
    """The settings with the name of the sinks' consumer group, which by default contains the id of their database.

    A copy of the database, for example one restored from a dump, has an id of its own, so its sinks share a group with
    no others. `url` names the database for callers with a role of their own.

    Raises:
        psycopg.OperationalError: when the database does not answer.
    """
    if settings.sink_group:
        return settings
    async with await open_session(
        database_conninfo(settings, url), "tickpipe group", connect_timeout=_CONNECT_SECONDS
    ) as connection:
        row = await (await connection.execute(SQL["database_id"])).fetchone()
    if row is None:
        raise RuntimeError("unreachable: every database is in pg_database")
    return settings.model_copy(update={"sink_group": f"{SINK_GROUP_PREFIX}{row[0]}"})


def retried(stopping: asyncio.Event) -> AsyncRetrying:
    """Retry something that needs Kafka while it is away; once `stopping` is set, the error is raised."""
    return AsyncRetrying(
        retry=retry_if_exception(is_retriable),
        wait=wait_exponential(0.2, max=5),
        stop=lambda _: stopping.is_set(),
        reraise=True,
    )


class LagMeter(PeriodicTask[None]):
    """The task that measures `tickpipe_sink_lag_records`, and whether Kafka answers."""

    name = "lag"
    interval_seconds = 5.0

    def __init__(self, settings: Settings, consumer: AIOKafkaConsumer, metrics: Metrics, health: Health) -> None:
        self._settings = settings
        self._consumer = consumer
        self._metrics = metrics
        self._health = health

    async def step(self) -> None:
        """Measure once."""
        try:
            with kafka_errors(self._settings, topic=self._settings.candles_topic):
                async with asyncio.timeout(self.interval_seconds):
                    mine = sorted(self._consumer.assignment())
                    ends = await self._consumer.end_offsets(mine)
                    for tp in mine:
                        position = await self._consumer.position(tp)
                        self._metrics.lag.labels(tp.topic, tp.partition).set(max(0, ends[tp] - position))
        except PartitionsLost:
            return  # the partition was reassigned meanwhile
        except TickpipeError:
            self._health.set("kafka", False)
            return
        self._health.set("kafka", True)


class Positions:
    """Where the next poll of each assigned partition begins, so that no record is skipped unnoticed."""

    def __init__(self, settings: Settings, metrics: Metrics, stopping: asyncio.Event) -> None:
        self._settings = settings
        self._metrics = metrics
        self._stopping = stopping
        self._next: dict[TopicPartition, int] = {}
        self._logs: dict[TopicPartition, str] = {}
        #: How far each log and partition was stored, since reading of it began.
        self._stored: dict[tuple[str, int], int] = {}
        self._assignments = 0

    def forget(self) -> None:
        """Make each partition begin again at its progress, after a rebalance or a change of database."""
        self._assignments += 1
        self._next.clear()
        self._stored.clear()

    def stored(self, spans: Collection[Span]) -> None:
        """Note that the database has confirmed these."""
        self._stored |= {(span.log, span.partition): span.next for span in spans}

    async def check(self, connection: Connection) -> None:
        """Check that the database still has what it confirmed, which a standby that took over may lack.

        A batch would show it, but none may come until the market opens.

        Raises:
            ProgressLost: when it ends before.
        """
        stored = dict(self._stored)
        for name in {name for name, _ in stored}:
            reached = await reached_offsets(connection, name)
            # What a rebalance takes away meanwhile is another sink's affair.
            mine = {number: end for (of, number), end in stored.items() if of == name and (of, number) in self._stored}
            if lost := sorted(number for number, end in mine.items() if reached.get(number, 0) < end):
                raise ProgressLost(f"the database no longer has all that it stored of {name}, partitions {lost}")

    def unknown(self, consumer: AIOKafkaConsumer) -> set[TopicPartition]:
        """The assigned partitions whose beginning is not known yet; records fetched from them are not to be used."""
        return set(consumer.assignment()) - self._next.keys()

    async def begin(self, consumer: AIOKafkaConsumer, database: Database) -> dict[TopicPartition, int]:
        """Seek to the progress of each partition whose beginning is not known yet.

        Returns where those begin of which Kafka knows less than the database has: no record may come that would be
        committed, and to whoever asks Kafka they would lag.

        Raises:
            psycopg.OperationalError, KafkaUnavailable: when the service is told to stop while one of them is away.
        """
        assignments, starting = self._assignments, self.unknown(consumer)
        async for attempt in retried(self._stopping):
            with attempt:
                # Kafka would never answer for a partition that was reassigned meanwhile.
                if assignments != self._assignments:
                    return {}
                bounds = await self._bounds(consumer, starting)
        starts = await database.run_patiently(partial(find_starts, bounds=bounds))
        if assignments != self._assignments:
            return {}
        for tp, start in starts.items():
            consumer.seek(tp, start.offset)
            self._next[tp], self._logs[tp] = start.offset, bounds[tp].log
            self._count_unseen(tp, start.unseen)
        return {tp: start.offset for tp, start in starts.items() if start.offset > (bounds[tp].committed or 0)}

    async def _bounds(
        self, consumer: AIOKafkaConsumer, tps: Collection[TopicPartition]
    ) -> dict[TopicPartition, Bounds]:
        logs = {topic: await log_name(self._settings, topic) for topic in {tp.topic for tp in tps}}
        with kafka_errors(self._settings, group=self._settings.sink_group, right="READ"):
            async with asyncio.timeout(_COMMITTED_SECONDS):
                first, end = await consumer.beginning_offsets(list(tps)), await consumer.end_offsets(list(tps))
                return {
                    tp: Bounds(logs[tp.topic], first[tp], end[tp], await consumer.committed(tp)) for tp in tps
                }  # fmt: skip

    def _count_unseen(self, tp: TopicPartition, records: int) -> None:
        self._metrics.unseen.labels(tp.topic).inc(records)
        if records:
            log.error(
                "Records were deleted from the topic before they were stored; `tickpipe verify --complete --repair` "
                "folds their minutes again from the ticks.",
                action="records_unseen", topic=tp.topic, partition=tp.partition, records=records,
            )  # fmt: skip

    async def take(self, tp: TopicPartition, records: Sequence[Record]) -> Span | None:
        """The part of the log that a poll has read; None when the poll must be discarded and the partition reread.

        Retention, compaction and transaction markers leave gaps between offsets, so a gap alone is no error.

        Raises:
            MissedRecords: when the log holds records between this poll and the one before.
            KafkaUnavailable: when the service is told to stop while no broker answers.
        """
        assignments, expected, first = self._assignments, self._next.get(tp), records[0].offset
        if expected is None:
            return None
        if first < expected:
            log.warning(
                "The topic begins again before what was read of it.", action="position_moved_back", topic=tp.topic,
                partition=tp.partition, expected=expected, offset=first,
            )  # fmt: skip
            del self._next[tp]
            return None
        # The broker's bars are compacted, so gaps are normal there.
        if first > expected and tp.topic == self._settings.candles_topic:
            async for attempt in retried(self._stopping):
                with attempt:
                    if assignments == self._assignments:
                        await self._check_gap(tp, expected, first)
        # After a reassignment during the check this poll says nothing about the next one.
        if assignments != self._assignments:
            return None
        self._next[tp] = records[-1].offset + 1
        return Span(self._logs[tp], tp.partition, expected, self._next[tp])

    async def _check_gap(self, tp: TopicPartition, expected: int, first: int) -> None:
        async with LogReader(self._settings) as reader:
            begin, _ = await reader.ends(tp.topic, tp.partition)
            if await reader.holds_records(tp.topic, tp.partition, expected, first - 1):
                raise MissedRecords(
                    f"offsets {expected} to {first - 1} of {tp.topic}-{tp.partition} were never handed over"
                )
        self._count_unseen(tp, max(0, min(begin, first) - expected))
        log.info("The log has a hole.", action="hole", partition=tp.partition, first=expected, last=first - 1)
