"""Finds and stores what the log holds and the table does not: the periods of every record, in one pass over the log."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import structlog
from aiokafka import TopicPartition

from marketdata.candle import Candle
from marketdata.coverage import Coverage, PeriodKey
from marketdata.offsets import Ranges, contains, from_multirange, position, union
from marketdata.refold import Proof, bridged
from marketdata.rule import Reduced, Verdict
from marketdata.timeframes import M1, Timeframe
from runtime.kafka import Ends, admin_client, log_ends
from runtime.kafka_groups import group_offsets
from runtime.logreader import log_name, own_log
from runtime.service import PeriodicTask, sleep_unless, unless_set
from runtime.settings import Settings
from runtime.ticklog import TickLog
from sink.db.connection import REFUSALS, Connection, Database, TooSlow
from sink.db.session import SQL
from sink.metrics import Metrics
from sink.progress import reached_offsets, wait_until_stored
from sink.refolds import proven_candle
from sink.times import time_msc, utc
from sink.writer import Writer

log = structlog.get_logger(__name__)

#: Periods that are compared with the table at once; until then their offsets are held in memory.
_BATCH_PERIODS: Final = 5_000

#: Published candles reach the table within this time, or the sink is not running (seconds).
_STORE_SECONDS: Final = 30.0

#: Reading begins at least this long before the first period asked for (milliseconds: an hour). Frames that begin even
#: earlier are found by `TickLog.first_reaching`.
_MARGIN_MS: Final = 3_600_000


@dataclass(frozen=True)
class Key:
    """Names a stored candle."""

    source: str
    symbol: str
    #: Start of the period.
    ts: datetime
    timeframe: str


@dataclass(frozen=True)
class Selection:
    """Which candles are asked for; None does not restrict."""

    symbol: str | None = None
    source: str | None = None
    #: Start of the first period, and the exclusive end.
    from_: datetime | None = None
    to: datetime | None = None
    periods: Collection[PeriodKey] | None = None

    def holds(self, key: PeriodKey) -> bool:
        """Whether the period is one of these."""
        source, symbol, ts = key
        return (
            (self.symbol is None or symbol == self.symbol)
            and (self.source is None or source == self.source)
            and (self.from_ is None or utc(ts) >= self.from_)
            and (self.to is None or utc(ts) < self.to)
            and (self.periods is None or key in self.periods)
        )


@dataclass
class _Stored:
    """What the table holds of a period."""

    #: Offsets of our log that its row holds, or will hold once a pending refold is done.
    offsets: Ranges
    closed: bool
    #: The row was folded from another log; the one with more ticks won when the two met.
    is_foreign: bool


async def _at_once() -> None:
    pass


@dataclass
class Completeness:
    """One pass over the log; `missing` yields the candles that the table lacks."""

    settings: Settings
    database: Database
    own_log: str
    selection: Selection
    timeframe: Timeframe = M1
    #: Fold from all that the log holds of a period: the offsets that rows claim to hold prove nothing.
    distrusts_rows: bool = False
    #: Check only what the workers and sinks have certainly finished. Otherwise a group that never committed is taken to
    #: have nothing in flight, and a sink that does not store is waited for no longer than `_STORE_SECONDS`.
    only_settled: bool = False
    #: Whether the periods whose candles are in this partition of `candles.m1` are looked at.
    looks_at: Callable[[int], bool] = lambda _: True
    #: Awaited between two pieces of the log, some hundred records each.
    pause: Callable[[], Awaitable[None]] = _at_once
    on_progress: Callable[[int], None] = lambda _: None
    #: Called with the number of periods compared with the table.
    on_compared: Callable[[int], None] = lambda _: None
    #: Whether the pass has reached the end of every partition.
    is_done: bool = field(default=False, init=False)
    # By partition, the offset at which an interrupted pass resumes.
    _next: dict[int, int] = field(default_factory=dict, init=False)
    #: Earlier periods were deleted by retention.
    _minutes_from: datetime | None = field(default=None, init=False)
    _now: datetime = field(default_factory=lambda: datetime.now(UTC), init=False)

    async def missing(self) -> AsyncIterator[list[Candle]]:
        """Yield candles, folded from the log, that the table lacks or whose rows lack some of the records.

        Records that no worker has committed are left out: their candles may still be in flight. After an error the next
        call resumes the pass where it stopped.

        Raises:
            KafkaUnavailable: when no broker answers.
            psycopg.Error: when the database refuses, or the service is told to stop while it is away.
        """
        ends = await self._folded()
        if ends is None:
            return
        self._now = datetime.now(UTC)
        self._minutes_from = await self.database.run(_minutes_from)
        async with TickLog(self.settings) as reading, TickLog(self.settings) as folding:
            for partition, (first, end) in ends.items():
                async for candles in self._missing_in((reading, folding), partition, first, end):
                    yield candles
        self.is_done = True

    async def _missing_in(
        self, logs: tuple[TickLog, TickLog], partition: int, first: int, end: int
    ) -> AsyncIterator[list[Candle]]:
        reading, folding = logs
        first = max(first, self._next.get(partition, 0))
        if first >= end:
            return
        coverage = Coverage(self.timeframe.base_width_ms)
        async for _ in reading.cover(coverage, partition, first, end - 1, on_progress=self.on_progress):
            await self.pause()
            if len(coverage) >= 2 * _BATCH_PERIODS:
                async for candles in self._compared(folding, coverage.settled()):
                    yield candles
                self._next[partition] = coverage.settled_until - position(partition, 0)
        async for candles in self._compared(folding, coverage.rest()):
            yield candles
        self._next[partition] = end

    async def _folded(self) -> Ends | None:
        """The part of each partition that the workers have folded and the sink has stored; None while it has not."""
        settings = self.settings
        async with admin_client(settings) as client:
            ends = await log_ends(settings, settings.ticks_topic, client)
            folded = await group_offsets(settings, settings.stream_group, settings.ticks_topic, client)
            candles = await log_ends(settings, settings.candles_topic, client)
        if not await self._is_stored(candles) and self.only_settled:
            return None
        begins = await self._begins(ends)
        parts: Ends = {}
        for partition, (first, end) in sorted(ends.items()):
            if self.looks_at(partition % max(1, len(candles))):
                unknown = first if self.only_settled else end
                parts[partition] = (begins[partition], folded.get(partition, unknown))
        return parts

    async def _is_stored(self, published: Ends) -> bool:
        log_of_candles = await log_name(self.settings, self.settings.candles_topic)

        async def ask() -> dict[int, int]:
            return await self.database.run(partial(reached_offsets, log_name=log_of_candles))

        return await wait_until_stored(ask, published, timeout_seconds=_STORE_SECONDS)

    async def _begins(self, ends: Ends) -> dict[int, int]:
        async with TickLog(self.settings) as tick_log:
            ends = await tick_log.extended(ends)
            if self.selection.from_ is None:
                return {partition: first for partition, (first, _) in ends.items()}
            from_ms = time_msc(self.selection.from_)
            return {
                partition: await tick_log.first_reaching(partition, of_log, from_ms, margin_ms=_MARGIN_MS)
                for partition, of_log in ends.items()
            }

    async def _compared(self, folding: TickLog, touched: dict[PeriodKey, Ranges]) -> AsyncIterator[list[Candle]]:
        wanted = [key for key in touched if self.selection.holds(key) and not self._is_deleted(key)]
        for start in range(0, len(wanted), _BATCH_PERIODS):
            keys = wanted[start : start + _BATCH_PERIODS]
            self.on_compared(len(keys))
            proofs: dict[Proof, _Stored] = {}
            for key, stored in zip(keys, await self._stored(keys), strict=True):
                if not stored.is_foreign and not contains(stored.offsets, touched[key]):
                    # As one range where the records are close, so that the refold sees one pass.
                    ranges = union(stored.offsets, bridged(touched[key]))
                    proofs[Proof(*key, ranges, self.timeframe)] = stored
            if proofs:
                yield await self._fold(folding, proofs)

    def _is_deleted(self, key: PeriodKey) -> bool:
        return self._minutes_from is not None and utc(key[2]) < self._minutes_from

    async def _fold(self, folding: TickLog, proofs: dict[Proof, _Stored]) -> list[Candle]:
        over_ms = time_msc(self._now - timedelta(seconds=self.settings.grace_seconds)) - self.timeframe.base_width_ms
        outcome = await folding.refold(proofs)
        candles = []
        for proof, fold in outcome.folds.items():
            closed = proofs[proof].closed or proof.ts <= over_ms
            candle = proven_candle(fold, proof.ranges, self.own_log, closed=closed)
            # A period without a usable price has no candle.
            if candle is not None:
                candles.append(candle)
        return candles

    async def _stored(self, keys: Sequence[PeriodKey]) -> list[_Stored]:
        sources, symbols, times = zip(*keys, strict=True)
        about: dict[str, Any] = {
            "sources": list(sources), "symbols": list(symbols), "times": list(map(utc, times)),
            "timeframe": self.timeframe.name, "first_ts": utc(min(times)), "last_ts": utc(max(times)),
            "log": self.own_log,
        }  # fmt: skip

        async def read(connection: Connection) -> list[Any]:
            return await (await connection.execute(SQL["stored_proofs"], about)).fetchall()

        rows = await self.database.run(read)
        if self.distrusts_rows:
            return [_Stored((), closed, is_foreign=False) for _, closed, _ in rows]
        return [_Stored(from_multirange(offsets), closed, is_foreign) for offsets, closed, is_foreign in rows]


async def _minutes_from(connection: Connection) -> datetime | None:
    row = await (await connection.execute(SQL["minutes_from"])).fetchone()
    return row[0] if row else None


async def store_folds(database: Database, writer: Writer, folds: Sequence[Candle], *, instead: bool = False) -> int:
    """Store refolded candles; returns how many rows changed. With `instead` rows are replaced whatever they hold.

    They are halved when they are too many for one transaction; what the database refuses is logged and left out.
    """

    async def write(connection: Connection) -> int:
        async with connection.transaction():
            if instead:
                await _delete_rows(connection, folds)
            actions = await writer.apply_candles(connection, [Reduced(candle, candle.offsets) for candle in folds])
        return actions[Verdict.REPLACED] + actions[Verdict.INSERTED]

    try:
        return await database.run(write)
    except (TooSlow, *REFUSALS) as exc:
        if len(folds) > 1:
            middle = len(folds) // 2
            stored = await store_folds(database, writer, folds[:middle], instead=instead)
            return stored + await store_folds(database, writer, folds[middle:], instead=instead)
        if isinstance(exc, TooSlow):
            raise
        candle = folds[0]
        log.error(
            "The database refuses a minute that was folded again; the table stays as it is.",
            action="fold_refused", symbol=candle.symbol, ts=utc(candle.ts).isoformat(), error=str(exc).strip(),
        )  # fmt: skip
        return 0


async def _delete_rows(connection: Connection, folds: Sequence[Candle]) -> None:
    times = [utc(candle.ts) for candle in folds]
    about = {
        "sources": [candle.source for candle in folds], "symbols": [candle.symbol for candle in folds],
        "timeframes": [candle.timeframe for candle in folds], "times": times,
        "first_ts": min(times), "last_ts": max(times),
    }  # fmt: skip
    await connection.execute(SQL["delete_candles"], about)


#: A sink that has just started, or was assigned partitions, first stores its backlog (seconds).
FIRST_SECONDS: Final = 60.0

#: When the workers or the sinks are behind the log, the check is tried again after this (seconds).
_BEHIND_SECONDS: Final = 60.0

#: After each piece of the log the check pauses for this many times as long as the piece took, so that it never takes
#: more than a quarter of a core.
_REST: Final = 3.0


class Checker(PeriodicTask[bool]):
    """The task that does what `tickpipe verify --complete --repair` does, for the newest days and by itself.

    It reads only while nothing waits to be stored. Each sink checks the partitions assigned to it. A check that is
    interrupted, by an error or a rebalance, resumes where it stopped.
    """

    name = "check"
    #: Reading two days of a hundred symbols takes minutes; a shorter interval would leave no pause.
    interval_seconds = 3_600.0

    def __init__(
        self,
        settings: Settings,
        database: Database,
        writer: Writer,
        metrics: Metrics,
        *,
        idle: asyncio.Event,
        assignment: Callable[[], Collection[TopicPartition]],
        first_seconds: float | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._writer = writer
        self._metrics = metrics
        self._idle = idle
        self._assignment = assignment
        self._first_seconds = FIRST_SECONDS if first_seconds is None else first_seconds
        self._began = datetime.now(UTC)
        metrics.checks.begun_at.set(self._began.timestamp())
        self._piece_began = time.monotonic()
        self._under_way: Completeness | None = None

    async def step(self) -> bool:
        """Check once, or resume an interrupted check; returns whether the check is complete."""
        await sleep_unless(self._database.stopping, self._first_seconds)
        self._first_seconds = 0
        return bool(await unless_set(self._database.stopping, self._check()))

    def pause_seconds(self, result: bool) -> float:
        """The interval, or less when something was behind."""
        return self.interval_seconds if result else _BEHIND_SECONDS

    async def _check(self) -> bool:
        await self._idle.wait()
        completeness = await self._taken_up()
        self._piece_began = time.monotonic()
        async for candles in completeness.missing():
            stored = await store_folds(self._database, self._writer, candles)
            self._metrics.checks.missing.inc(stored)
            if stored:
                log.warning(
                    "Minutes that the log holds were missing from the table; they were folded again and stored.",
                    action="missing_stored", candles=stored, first=min(candle.ts for candle in candles),
                    last=max(candle.ts for candle in candles),
                )  # fmt: skip
        if completeness.is_done:
            self._metrics.checks.begun_at.set(self._began.timestamp())
            self._under_way = None
        return completeness.is_done

    async def _taken_up(self) -> Completeness:
        log_name = await own_log(self._settings)
        found = self._under_way
        if found is None or found.own_log != log_name:
            self._began = datetime.now(UTC)
            found = self._under_way = Completeness(
                self._settings,
                self._database,
                log_name,
                Selection(from_=self._began - timedelta(days=self._settings.check_days)),
                only_settled=True,
                looks_at=self._is_mine,
                pause=self._pause,
                on_compared=self._metrics.checks.minutes.inc,
            )
        return found

    def _is_mine(self, partition: int) -> bool:
        return TopicPartition(self._settings.candles_topic, partition) in self._assignment()

    async def _pause(self) -> None:
        await asyncio.sleep(_REST * (time.monotonic() - self._piece_began))
        await self._idle.wait()
        self._piece_began = time.monotonic()
