"""The ledger of minutes without ticks: what is wanted is found, published for senders that can fill, and crossed off.

A sender's report closes the minutes of its range for good: what has no candle by then the broker did not have. Ranges
that are wanted are published to the compacted topic `wanted`, which producers read.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from aiokafka import TopicPartition
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from marketdata.errors import InvalidReport
from marketdata.minutes import ASK_MS, Range, asks, intersect, subtract, union
from marketdata.wire import Fill, QuoteSessions, Report, decode_wanted, encode, frame_key
from runtime.kafka import SideWriter
from runtime.logreader import LogReader
from runtime.service import PeriodicTask, TaskMetrics, sleep_unless
from runtime.settings import Settings
from sink.db.connection import Connection, Database
from sink.db.session import SQL
from sink.gaps import Gap, Habits, Known, Series, State, fetch_all, find_gaps, read_known
from sink.metrics import Metrics
from sink.stored_until import StoredUntil
from sink.times import time_msc, utc

log = structlog.get_logger(__name__)

#: The newest minutes may still come: their candles wait for late ticks, then for the sink.
_NEWEST: Final = timedelta(minutes=2)

#: A silence counts when so many of its minutes would usually have a candle. Asking in vain costs a sender one reading.
_LEAST: Final = 2

#: A silence that is longer is asked for once, whatever is usual (milliseconds).
_LONG_MS: Final = 1_800_000

#: What could not be filled is asked for again after this.
_AGAIN: Final = timedelta(hours=6)

#: What one step looks at: hours of all symbols, some 0.4 million rows for a thousand; ranges that have candles by now.
_PIECE: Final = timedelta(hours=6)
_MOST_FILLED: Final = 200

#: Ranges of a symbol that are published at once, two days and more.
_MOST_ASKED: Final = 64

#: Everything is looked at again after this: a person may have deleted minutes.
_ALL_AGAIN: Final = timedelta(hours=6)

#: Symbols with minutes that were stored late that one step looks at, each a week of an index.
_MOST_LATE: Final = 50

#: So soon after a report the next ranges are published, together with what was reported meanwhile (seconds).
_NEWS_SECONDS: Final = 2.0

#: Between two pieces of the first pass (seconds).
_BREATHER_SECONDS: Final = 0.2

_HOLES: Final = ("wanted", "failed")

#: The sink's batches, its keeper and the user write the ledger in turn, each in a short transaction: by rows they would
#: lock each other out, and live candles would wait with the reports of their batch.
_LEDGER_LOCK: Final = 0x6C656467

#: Series whose gaps one transaction enters.
_MOST_ENTERED: Final = 50


class _SeriesGaps(NamedTuple):
    """New gaps of one symbol and source, or those that are left of a range that has candles by now."""

    series: Series
    gaps: Sequence[Gap]
    filled: Range | None = None


async def apply_reports(connection: AsyncConnection[Any], reports: Iterable[Report]) -> int:
    """Enter what senders report, inside the caller's transaction; returns how many reports there were.

    Reports may be repeated.
    """
    await _lock(connection)
    ordered = sorted(reports, key=lambda one: (one.source, one.symbol, one.received))
    # All at once: every sender tells those of all its symbols when it begins, and live candles wait meanwhile.
    sessions = [
        {
            "source": report.source, "symbol": report.symbol, "utc_offset_s": report.utc_offset_s,
            "sessions": Jsonb(report.sessions), "received": utc(report.received),
        }
        for report in ordered if isinstance(report, QuoteSessions)
    ]  # fmt: skip
    if sessions:
        async with connection.cursor() as cursor:
            await cursor.executemany(SQL["apply_sessions"], sessions)
    for report in ordered:
        if isinstance(report, Fill):
            await _apply_fill(connection, report)
    return len(ordered)


async def _apply_fill(connection: AsyncConnection[Any], fill: Fill) -> None:
    series = (fill.symbol, fill.source)
    range_ = (fill.from_ms, fill.to_ms)
    if not fill.error:
        await _cut(connection, series, _HOLES, range_)
        await connection.execute(SQL["mark_ledger"], _about(series, range_) | {"state": "none"})
        return
    about = {"from_": utc(fill.from_ms), "to": utc(fill.to_ms), "symbol": fill.symbol, "source": fill.source}
    rows = await fetch_all(connection, "ledger_ranges", about | {"states": list(_HOLES)})
    await _cut(connection, series, _HOLES, range_)
    for _, _, _, begins, ends, expected, _, _ in rows:
        [failed] = intersect([(time_msc(begins), time_msc(ends))], [range_])
        await _insert(connection, series, failed, "failed", expected, tried_at=utc(fill.received), error=fill.error)


async def close(connection: AsyncConnection[Any], series: Series, from_: datetime, to: datetime) -> None:
    """Enter that the market is closed from `from_` to `to`, whole minutes."""
    range_ = (time_msc(from_), time_msc(to))
    async with connection.transaction():
        await _lock(connection)
        await connection.execute(SQL["mark_ledger"], _about(series, range_) | {"state": "closed"})


async def reopen(connection: AsyncConnection[Any], series: Series, from_: datetime, to: datetime) -> None:
    """Take back what was entered, closed by the user or that the broker has none, and have it looked at again."""
    async with connection.transaction():
        await _lock(connection)
        range_ = (time_msc(from_), time_msc(to))
        await _cut(connection, series, ("closed", "none"), range_)
        await connection.execute(SQL["note_late"], _about(series, range_))


class LedgerKeeper(PeriodicTask[bool]):
    """The task that finds what is wanted, publishes it and crosses off what has come; one of the sinks does it.

    After its first pass over the newest days it looks only at what is new in the table, at ranges that are wanted and
    have candles by now, and at what lies beside minutes that any sink has stored late (the table `late_minutes`); never
    at times up to which the log is not yet folded and stored.
    """

    name = "ledger"
    #: Longer finds later; shorter asks Kafka how far everybody is more often.
    interval_seconds = 30.0

    def __init__(
        self,
        settings: Settings,
        database: Database,
        metrics: Metrics,
        stored_until: StoredUntil,
        *,
        assignment: Callable[[], Collection[TopicPartition]],
        interval_seconds: float | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._metrics = metrics
        self._assignment = assignment
        self._stored_until = stored_until
        self._interval_seconds = self.interval_seconds if interval_seconds is None else interval_seconds
        self._writer = SideWriter(settings)
        self._habits = Habits()
        #: Everything was looked at up to here.
        self._looked: datetime | None = None
        self._until: datetime | None = None
        self._began = datetime.now(UTC)
        #: When Kafka was last asked (of the monotonic clock), and whether reports were stored since the last step.
        self._asked_at = -math.inf
        self._has_news = False
        #: Whether everything was stored when Kafka was last asked.
        self._is_stored = False
        #: What was taken out of `late_minutes` and is not looked at yet.
        self._late: dict[Series, datetime] = {}
        #: What the topic `wanted` says; None when it has to be read.
        self._published: dict[bytes, list[Range]] | None = None

    async def run(self, stopping: asyncio.Event, metrics: TaskMetrics) -> None:
        """See `PeriodicTask`; closes its connection at the end."""
        try:
            await super().run(stopping, metrics)
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connection to Kafka."""
        await self._writer.stop()

    def reported(self) -> None:
        """This sink has stored reports: ranges that wait behind those can be asked for."""
        self._has_news = True

    async def rest(self, stopping: asyncio.Event, seconds: float) -> None:
        """See `PeriodicTask`; reports end it."""
        over = time.monotonic() + seconds
        while (left := over - time.monotonic()) > 0 and not stopping.is_set():
            await sleep_unless(stopping, min(left, _NEWS_SECONDS))
            if self._has_news:
                return

    def pause_seconds(self, result: bool) -> float:
        """The interval, or less when there is more to do."""
        return self._interval_seconds if result else _BREATHER_SECONDS

    async def step(self) -> bool:
        """Look at what is new, and publish what changed; returns whether nothing is left to do."""
        if TopicPartition(self._settings.fills_topic, 0) not in self._assignment():
            self._looked = self._published = None
            self._late.clear()
            self._metrics.checks.gap_minutes.clear()
            return True
        has_news, self._has_news = self._has_news, False
        # Between two looks at what is new, reports need none: that asks Kafka how far everybody is.
        is_due = not has_news or time.monotonic() - self._asked_at >= self._interval_seconds
        if is_due and (self._until is None or self._looked == self._until):
            now = datetime.now(UTC)
            self._asked_at = time.monotonic()
            stored = await self._stored_until.newest(now)
            if now - self._began > _ALL_AGAIN:
                self._began, self._looked = now, None
            self._is_stored = stored is not None
            if stored is not None:
                self._until = min(stored, now - _NEWEST).replace(second=0, microsecond=0)
        if self._until is None:
            return True
        window = self._until - timedelta(days=self._settings.ledger_days)
        is_done = await self._database.run(partial(self._look, window=window, until=self._until))
        await self._publish(window, self._until)
        return is_done

    async def _look(self, connection: Connection, *, window: datetime, until: datetime) -> bool:
        from_ = window if self._looked is None else max(window, self._looked)
        to = min(until, from_ + _PIECE)
        filled = await fetch_all(connection, "filled_ranges", {"most": _MOST_FILLED})
        entries = [
            _SeriesGaps((symbol, source), gaps, (time_msc(begins), time_msc(ends)))
            for source, symbol, begins, ends in filled
            for gaps in [await self._gaps(connection, begins, ends, begins, (symbol, source))]
        ]
        # Not while more of it is on its way.
        if self._is_stored and not self._late:
            # Committed before it is looked at: what is stored from here on makes another row.
            taken = await fetch_all(connection, "take_late", {"most": _MOST_LATE})
            self._late = {(symbol, source): oldest for symbol, source, oldest in taken}
        late = self._late
        for series, oldest in late.items():
            if oldest < from_:
                gaps = await self._gaps(connection, max(window, oldest), from_, window, series)
                entries.append(_SeriesGaps(series, gaps))
        if from_ < to:
            found = await self._gaps(connection, from_, to, window)
            settled = [gap for one in found if (gap := _settled(one, to)) is not None]
            entries += [_SeriesGaps((gap.symbol, gap.source), [gap]) for gap in settled]
        await self._enter(connection, entries, window)
        self._late, self._looked = {}, to
        return to == until and len(filled) < _MOST_FILLED and len(late) < _MOST_LATE

    async def _gaps(
        self,
        connection: Connection,
        from_: datetime,
        to: datetime,
        since: datetime,
        series: tuple[str | None, str | None] = (None, None),
    ) -> list[Gap]:
        symbol, source = series
        return await find_gaps(
            connection, from_, to, symbol=symbol, source=source, least=_LEAST, zones=self._settings.zones,
            since=since, habits=self._habits,
        )  # fmt: skip

    async def _enter(self, connection: Connection, entries: Sequence[_SeriesGaps], window: datetime) -> None:
        for start in range(0, max(1, len(entries)), _MOST_ENTERED):
            async with connection.transaction():
                await _lock(connection)
                if not start:
                    await connection.execute(SQL["forget_wanted"], {"before": window})
                for entry in entries[start : start + _MOST_ENTERED]:
                    if entry.filled is not None:
                        await _cut(connection, entry.series, _HOLES, entry.filled)
                    for gap in entry.gaps:
                        await self._note(connection, gap, is_rest=entry.filled is not None)

    async def _note(self, connection: Connection, gap: Gap, *, is_rest: bool) -> None:
        """Enter that a gap is wanted; `is_rest` when it is what is left of one that was wanted, or failed."""
        if gap.is_known and not (is_rest and gap.state is State.FAILED):
            return
        range_ = (time_msc(gap.begins), time_msc(gap.ends))
        series = (gap.symbol, gap.source)
        is_missing = gap.state in (State.MISSING, State.UNKNOWN, State.FAILED)
        if not (is_missing or range_[1] - range_[0] >= _LONG_MS or self._habits.is_young(series)):
            return
        # A report may have come since it was found.
        about = {"from_": gap.begins, "to": gap.ends, "symbol": gap.symbol, "source": gap.source, "states": ["none"]}
        reported = [(time_msc(row[3]), time_msc(row[4])) for row in await fetch_all(connection, "ledger_ranges", about)]
        await _cut(connection, series, ("wanted",), range_)
        for left in subtract([range_], union(reported)):
            share = (left[1] - left[0]) / (range_[1] - range_[0])
            await _insert(connection, series, left, "wanted", math.ceil(gap.minutes * share))

    async def _publish(self, window: datetime, until: datetime) -> None:
        if self._published is None:
            self._published = await _read_published(self._settings)
        minutes, asked = await self._database.run(partial(self._asked, window=window, until=until))
        for state, count in minutes.items():
            self._metrics.checks.gap_minutes.labels(state).set(count)
        published = self._published
        changed = {
            key: asked.get(key, []) for key in {*asked, *published} if asked.get(key, []) != published.get(key, [])
        }
        if not changed:
            return
        records = [(key, encode(ranges) if ranges else None) for key, ranges in sorted(changed.items())]
        await self._writer.write(self._settings.wanted_topic, records)
        published |= changed

    async def _asked(
        self, connection: Connection, *, window: datetime, until: datetime
    ) -> tuple[dict[str, int], dict[bytes, list[Range]]]:
        about = {"from_": window, "to": until, "symbol": None, "source": None, "states": list(_HOLES)}
        rows = await fetch_all(connection, "ledger_ranges", about)
        minutes = dict.fromkeys(_HOLES, 0)
        holes: dict[Series, list[Range]] = defaultdict(list)
        done: dict[Series, list[Range]] = defaultdict(list)
        if rows:
            for source, symbol, begins, ends in await fetch_all(connection, "done_beside_holes", about):
                done[symbol, source].append((time_msc(begins), time_msc(ends)))
            known = await read_known(connection, (window, until), self._settings.zones, states=("closed",))
        for source, symbol, state, begins, ends, expected, tried_at, _ in rows:
            range_ = (time_msc(begins), time_msc(ends))
            left = subtract([range_], known.get((symbol, source), Known()).closed_within(range_))
            if not left:
                continue
            minutes[state] += expected
            if state == "wanted" or tried_at < datetime.now(UTC) - _AGAIN:
                holes[symbol, source] += left
        return minutes, {
            frame_key(source, symbol): asks(ranges, _MOST_ASKED, union(done[symbol, source]))
            for (symbol, source), ranges in holes.items()
        }


def _settled(gap: Gap, to: datetime) -> Gap | None:
    """The gap; of one that goes on at `to` its whole hours, or it would be another one every minute."""
    if gap.ends < to:
        return gap
    ends = utc(time_msc(gap.ends) // ASK_MS * ASK_MS)
    return gap._replace(ends=ends) if ends - gap.begins >= timedelta(minutes=_LEAST) else None


async def _read_published(settings: Settings) -> dict[bytes, list[Range]]:
    found: dict[bytes, list[Range]] = {}
    topic = settings.wanted_topic
    async with LogReader(settings) as reader:
        for partition in await reader.partitions(topic):
            first, end = await reader.ends(topic, partition)
            async for records in reader.read(topic, partition, first, end - 1):
                for record in records:
                    key = record.key or b""
                    found[key] = []
                    with suppress(InvalidReport):
                        found[key] = [] if record.value is None else decode_wanted(record.value)
    return found


def _about(series: Series, range_: Range) -> dict[str, Any]:
    symbol, source = series
    return {"source": source, "symbol": symbol, "begins": utc(range_[0]), "ends": utc(range_[1])}


async def _lock(connection: AsyncConnection[Any]) -> None:
    await connection.execute(SQL["lock_ledger"], {"key": _LEDGER_LOCK})


async def _cut(connection: AsyncConnection[Any], series: Series, states: Collection[str], range_: Range) -> None:
    await connection.execute(SQL["cut_ledger"], _about(series, range_) | {"states": list(states)})


async def _insert(
    connection: AsyncConnection[Any],
    series: Series,
    range_: Range,
    state: str,
    expected: int,
    *,
    tried_at: datetime | None = None,
    error: str | None = None,
) -> None:
    about = {"state": state, "expected": expected, "tried_at": tried_at, "error": error}
    await connection.execute(SQL["insert_holes"], _about(series, range_) | about)
