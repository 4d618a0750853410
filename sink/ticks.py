"""Reads the ticks of one source and symbol from the log: each once, exactly those that the candles count.

The proof in a minute's row names the records that hold the minute. What the table cannot know yet is read from the end
of the log (docs/decisions/0014). Each minute is then refolded by the same fold that made its candle, which returns the
ticks instead.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, cast, get_type_hints

from aiokafka import TopicPartition

from marketdata.errors import UnknownTopic
from marketdata.offsets import Ranges, from_multirange, size, union
from marketdata.refold import Coverage, Proof, RecordFold, TickFold, TickRow, bridged, columns_of
from marketdata.tick import MINUTE_MS, Tick, period_of
from marketdata.timeframes import M1
from marketdata.wire import decimals_of
from runtime.kafka import Ends, admin_client, committed_offsets, topic_ends
from runtime.kafka_errors import kafka_errors
from runtime.logreader import log_name, own_log
from runtime.settings import Settings
from runtime.ticklog import Refolded, TickLog
from sink.db.connection import Connection
from sink.db.session import SQL
from sink.progress import reached_offsets, wait_until_stored
from sink.staging import time_msc, utc

#: Maximum number of ticks and of minutes folded in one pass over the log: they are held in memory, some 50 MB.
PASS_TICKS: Final = 100_000
_PASS_MINUTES: Final = 1_500

#: Published candles reach the table within this time, or the sink is not running (seconds).
_STORE_SECONDS: Final = 2.0

#: Without candles, reading begins at least this long before the range asked for (milliseconds: an hour).
_MARGIN_MS: Final = 3_600_000

#: Opens a connection, or takes one from a pool, for a moment.
Reading = Callable[[], AbstractAsyncContextManager[Connection]]


@dataclass(frozen=True)
class TickRange:
    """The ticks asked for, from `first_ms` up to, not including, `end_ms` (UTC epoch milliseconds)."""

    source: str
    symbol: str
    first_ms: int
    end_ms: int

    @property
    def about(self) -> dict[str, Any]:
        """The parameters of the SQL statements, in whole minutes."""
        return {
            "source": self.source, "symbol": self.symbol,
            "from_": utc(period_of(self.first_ms)), "to": utc(self.end_ms),
        }  # fmt: skip

    def holds(self, ts: int) -> bool:
        """Whether a part of the minute that begins at `ts` is asked for."""
        return self.first_ms - MINUTE_MS < ts < self.end_ms


@dataclass(frozen=True)
class MinuteTicks:
    """The ticks of one minute, as far as they are asked for."""

    #: Start of the minute (UTC epoch milliseconds).
    ts: int
    #: As `TickFold.rows` or, raw, `RecordFold.rows` gives them.
    rows: list[TickRow]
    #: The log no longer holds all records that the minute was folded from: `rows` is empty.
    is_gone: bool = False


@dataclass(frozen=True)
class _Minute:
    ts: int
    ranges: Ranges
    #: Its candle was folded from another log.
    is_foreign: bool
    #: As far as known.
    ticks: int


class TickReader:
    """Reads the ticks of one range; `minutes` yields them."""

    def __init__(
        self,
        settings: Settings,
        reading: Reading,
        wanted: TickRange,
        *,
        raw: bool = False,
        pass_ticks: int = PASS_TICKS,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`raw` asks for the ticks of every record; `on_progress` is told how many minutes were dealt with."""
        self._settings = settings
        self._reading = reading
        self._wanted = wanted
        self._kind = RecordFold if raw else TickFold
        self._pass_ticks = pass_ticks
        self._on_progress = on_progress

    async def minutes(self) -> AsyncGenerator[MinuteTicks, None]:
        """The minutes that have ticks, or had some that are gone, in order of time.

        Holds at most PASS_TICKS ticks in memory, or the ticks of one minute, and a connection only for single queries.

        Raises:
            KafkaUnavailable: when no broker answers.
            psycopg.Error: when the database does not, or what the caller's `reading` makes of it.
        """
        own = await own_log(self._settings)
        async with TickLog(self._settings) as tick_log:
            unstored = await self._unstored(tick_log)
            async for minutes in self._passes(own, unstored):
                async for found in self._read(tick_log, minutes):
                    yield found
                self._on_progress(len(minutes))

    async def _read(self, tick_log: TickLog, minutes: list[_Minute]) -> AsyncIterator[MinuteTicks]:
        wanted = self._wanted
        proofs = {m.ts: Proof(wanted.source, wanted.symbol, m.ts, m.ranges) for m in minutes if not m.is_foreign}
        parts = tick_log.refold_parts(proofs.values(), new_fold=self._kind, max_ticks=self._pass_ticks)
        part = Refolded()
        for minute in minutes:
            # Lets a server answer other requests.
            await asyncio.sleep(0)
            proof = proofs.get(minute.ts)
            while proof is not None and proof not in part.folds and proof not in part.unprovable:
                part = await anext(parts)
            if proof is None or proof in part.unprovable:
                yield MinuteTicks(minute.ts, [], is_gone=True)
                continue
            fold = cast(TickFold | RecordFold, part.folds.pop(proof))
            if rows := [row for row in fold.rows() if wanted.first_ms <= row[0] < wanted.end_ms]:
                yield MinuteTicks(minute.ts, rows)

    async def _passes(self, own: str, unstored: dict[int, Ranges]) -> AsyncIterator[list[_Minute]]:
        group: list[_Minute] = []
        ticks = 0
        async for minute in self._minutes(own, unstored):
            if group and (ticks + minute.ticks > self._pass_ticks or len(group) == _PASS_MINUTES):
                yield group
                group, ticks = [], 0
            group.append(minute)
            ticks += minute.ticks
        if group:
            yield group

    async def _minutes(self, own: str, unstored: dict[int, Ranges]) -> AsyncIterator[_Minute]:
        """What the table and the end of the log know of each minute, in order of time."""
        about = self._wanted.about | {"log": own, "limit": _PASS_MINUTES}
        begin, end = period_of(self._wanted.first_ms), self._wanted.end_ms
        left = sorted(unstored, reverse=True)
        while begin < end:
            async with self._reading() as connection:
                rows = await (await connection.execute(SQL["tick_proofs"], about | {"from_": utc(begin)})).fetchall()
            reached = time_msc(rows[-1][0]) + MINUTE_MS if len(rows) == _PASS_MINUTES else end
            known = {time_msc(ts): _Minute(time_msc(ts), from_multirange(r), *rest) for ts, r, *rest in rows}
            while left and left[-1] < reached:
                ts = left.pop()
                known[ts] = _with_unstored(ts, known.get(ts), unstored[ts])
            for ts in sorted(known):
                yield known[ts]
            begin = reached

    async def _unstored(self, tick_log: TickLog) -> dict[int, Ranges]:
        """The minutes touched by records that the table may not know yet, and the offsets of these records."""
        wanted = self._wanted
        touched: dict[int, Ranges] = {}
        for partition, (first, end) in (await self._unfolded(tick_log)).items():
            coverage = Coverage(M1.base_width_ms)
            async for chunk in tick_log.read(partition, first, end - 1):
                own = [one for one in chunk if (one[1].source, one[1].symbol) == (wanted.source, wanted.symbol)]
                if own:
                    coverage.feed(own)
                await asyncio.sleep(0)
            for (_, _, ts), ranges in coverage.rest().items():
                if wanted.holds(ts):
                    touched[ts] = union(touched.get(ts, ()), bridged(ranges))
        return touched

    async def _unfolded(self, tick_log: TickLog) -> Ends:
        """The part of each partition that may hold ticks of which no candle is stored.

        What the workers have committed is in published candles, which are stored once the sink has read that far. Where
        that is unknown, the whole part of the log that may hold ticks of the range is read.
        """
        settings = self._settings
        folded, ends = await self._offsets()
        is_known = await self._is_stored(ends[settings.candles_topic])
        unfolded: Ends = {}
        for partition, (first, end) in (await tick_log.extended(ends[settings.ticks_topic])).items():
            begin = folded.get(TopicPartition(settings.ticks_topic, partition))
            if begin is None or not is_known:
                from_ms = self._wanted.first_ms
                reaching = await tick_log.first_reaching(partition, (first, end), from_ms, margin_ms=_MARGIN_MS)
                begin = reaching if begin is None else min(begin, reaching)
            if (begin := max(begin, first)) < end:
                unfolded[partition] = (begin, end)
        return unfolded

    async def _offsets(self) -> tuple[dict[TopicPartition, int], dict[str, Ends]]:
        """The offsets committed by the workers, and then the ends of ticks and candles."""
        settings = self._settings
        async with admin_client(settings) as client:
            with kafka_errors(settings, group=settings.stream_group, right="DESCRIBE"):
                folded = await committed_offsets(client, settings.stream_group)
                ends = await topic_ends(client, [settings.ticks_topic, settings.candles_topic])
        if missing := [topic for topic, of_topic in ends.items() if not of_topic]:
            raise UnknownTopic(missing[0])
        return folded, ends

    async def _is_stored(self, published: Ends) -> bool:
        """Whether the table has every minute that was published so far and is asked for."""
        log = await log_name(self._settings, self._settings.candles_topic)

        async def ask() -> dict[int, int]:
            async with self._reading() as connection:
                return await reached_offsets(connection, log)

        if not await wait_until_stored(ask, published, timeout_seconds=_STORE_SECONDS):
            return False
        async with self._reading() as connection:
            row = await (await connection.execute(SQL["minutes_from"])).fetchone()
        # Minutes before it were deleted from the table, not from the log.
        return row is None or row[0] is None or row[0] <= utc(self._wanted.first_ms)


def _with_unstored(ts: int, stored: _Minute | None, ranges: Ranges) -> _Minute:
    if stored is None:
        return _Minute(ts, ranges, is_foreign=False, ticks=size(ranges))
    return _Minute(ts, union(stored.ranges, ranges), stored.is_foreign, stored.ticks + size(ranges))


async def sources_of(connection: Connection, symbol: str) -> list[str]:
    """The sources of which candles of the symbol are stored."""
    return [source for (source,) in await (await connection.execute(SQL["sources_of"], {"symbol": symbol})).fetchall()]


async def count_minutes(connection: Connection, wanted: TickRange) -> int:
    """How many minutes of the range are stored."""
    row = await (await connection.execute(SQL["count_tick_minutes"], wanted.about)).fetchone()
    return int(row[0]) if row else 0


async def digits_of(connection: Connection, source: str, symbol: str) -> int | None:
    """Decimals of the prices; None where their sender does not say."""
    row = await (await connection.execute(SQL["point_of"], {"source": source, "symbol": symbol})).fetchone()
    return None if row is None else decimals_of(row[0])


def missing_spans(minutes: Iterable[int]) -> list[tuple[int, int]]:
    """Group ascending minutes into spans of consecutive ones: start of the first, end of the last."""
    spans: list[tuple[int, int]] = []
    for ts in minutes:
        if spans and spans[-1][1] == ts:
            spans[-1] = (spans[-1][0], ts + MINUTE_MS)
        else:
            spans.append((ts, ts + MINUTE_MS))
    return spans


class ArrowTicks:
    """Ticks as Arrow columns, where pyarrow is installed."""

    def __init__(self, *, raw: bool) -> None:
        """`raw` is for the ticks of every record. Raises ImportError without pyarrow."""
        import pyarrow as pa  # noqa: PLC0415 - an optional extra, and slow to load

        moment = pa.timestamp("ms", tz="UTC")
        of_python = {int: pa.int64(), float: pa.float64()}
        types = {name: of_python[type_] for name, type_ in get_type_hints(Tick).items()} | {
            "time": moment, "partition": pa.int32(), "offset": pa.int64(), "index": pa.int32(), "received": moment,
            "request": pa.string(),
        }  # fmt: skip
        self._pa = pa
        self.schema = pa.schema([(name, types[name]) for name in columns_of(raw=raw)])

    def batch(self, rows: Sequence[TickRow]) -> Any:
        """The rows as a `pyarrow.RecordBatch`."""
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        # The first column is the time once more, as a timestamp.
        values = zip((columns[0], *columns), self.schema, strict=True)
        return self._pa.record_batch([self._pa.array(column, field.type) for column, field in values], self.schema)
