"""Verifies stored candles: refolds them from the offsets they name, compares, and on request repairs them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry

from marketdata.candle import PROVEN_FIELDS, Candle
from marketdata.coverage import PeriodKey
from marketdata.errors import UnknownTimeframe
from marketdata.offsets import from_multirange
from marketdata.refold import Proof
from marketdata.timeframes import M1, timeframe_named
from runtime.logreader import LogClients, own_log, wait_for_log
from runtime.settings import Settings
from runtime.ticklog import TickLog
from sink.completeness import Completeness, Key, Selection, store_folds
from sink.db.connection import Connection, Database
from sink.db.session import SQL, database_conninfo, open_session
from sink.derived import fill_bars, roll_up_again, unfilled_bars, wrong_roll_ups
from sink.metrics import Metrics
from sink.progress import with_sink_group
from sink.refolds import proven_candle
from sink.times import time_msc, utc
from sink.writer import LogEnds, Writer

#: Maximum number of candles in one pass over the log; they are held in memory.
_PASS_CANDLES: Final = 50_000

#: Rows that the server-side cursor fetches at once.
_FETCH_ROWS: Final = 5_000

#: Somebody is waiting at the terminal: a broker that does not answer for this long counts as down (seconds).
_KAFKA_TIMEOUT_SECONDS: Final = 15.0


#: Writes candles; returns how many rows changed.
Repair = Callable[[Sequence[Candle]], Awaitable[int]]


@dataclass(frozen=True)
class Difference(Key):
    """A field whose stored value differs from the fold's; times are UTC epoch milliseconds."""

    #: One of `marketdata.candle.PROVEN_FIELDS`, or `candle` when the offsets hold no priced tick of the period at all.
    field: str
    stored: float | int | None
    folded: float | int | None


@dataclass
class VerifyReport:
    """What verify found: checked = equal + candles in `differences`; unprovable and pending ones are not checked."""

    checked: int = 0
    equal: int = 0
    #: One entry per field that differs.
    differences: list[Difference] = field(default_factory=list)
    #: Candles whose offsets the log does not hold (retention, a topic or cluster re-created).
    unprovable: list[Key] = field(default_factory=list)
    #: Candles that wait for a refold: what is stored is known to be incomplete.
    pending: list[Key] = field(default_factory=list)
    #: With `complete`: candles that the log holds and the table does not, or not with all records that touch them.
    missing: list[Key] = field(default_factory=list)
    #: With `complete`: bars of the broker that the table lacks, or has otherwise than the broker sent them.
    unfilled: list[Key] = field(default_factory=list)
    #: With `complete`: hours and days that are not the roll-up of their minutes.
    wrong_roll_ups: list[Key] = field(default_factory=list)
    #: Candles that were written by `repair`.
    repaired: int = 0


async def verify(
    settings: Settings,
    *,
    symbol: str | None = None,
    source: str | None = None,
    from_: datetime | None = None,
    to: datetime | None = None,
    on_total: Callable[[int], None] = lambda _: None,
    on_progress: Callable[[int], None] = lambda _: None,
    repair: bool = False,
    complete: bool = False,
    distrust: bool = False,
) -> VerifyReport:
    """Fold every stored candle of the selection again (`from_` included, `to` not; aware datetimes) and compare.

    `on_total` is told the number of candles once, `on_progress` how many were dealt with since the last call. Reads the
    parts of the log that the candles name. With `repair` the folds of candles that differ are written, and candles that
    name offsets which the log cannot hold, or which hold no tick of theirs, are folded from what it does hold of their
    period; with `distrust` those of other logs as well. The report still lists the differences that were found. With
    `complete` the whole log is read as well: what the table lacks of it is listed as missing, with `repair` written.
    The broker's bars, hours and days are then compared with what they are derived from as well.

    Raises:
        psycopg.OperationalError: when the database does not answer.
        KafkaUnavailable: when no broker answers.
    """
    settings = await with_sink_group(settings)
    log_ends = LogEnds(settings, await wait_for_log(settings, begins_log=False, timeout_seconds=_KAFKA_TIMEOUT_SECONDS))
    selection = Selection(symbol, source, from_, to)
    about = asdict(selection)
    url = database_conninfo(settings)
    report = VerifyReport()
    database = Database(url, asyncio.Event())
    writer = Writer(log_ends, Metrics(CollectorRegistry()))
    repair_with = partial(store_folds, database, writer) if repair else None
    reading = await open_session(url, "tickpipe verify")
    try:
        row = await (await reading.execute(SQL["count_stored"], about)).fetchone()
        on_total(row[0] if row else 0)
        await log_ends.refresh()
        lies: list[Candle] = []
        async with TickLog(settings) as tick_log:
            async for stored in _passes(reading, about, report, on_progress):
                if stored[0].log == log_ends.own_log:
                    compared = await _compare(tick_log, stored, report)
                    lies += compared.without_tick
                    lies += (candle for candle in compared.unreadable if not log_ends.holds(candle.offsets))
                    if repair_with is not None and compared.wrong:
                        report.repaired += await repair_with(compared.wrong)
                else:
                    report.unprovable += map(_key, stored)
                    lies += stored if distrust else ()
                on_progress(len(stored))
        if repair and lies:
            report.repaired += await _rebuild(settings, database, writer, lies)
        if complete:
            await _complete(Completeness(settings, database, log_ends.own_log, selection), report, repair_with)
            await _compare_derived(reading, database if repair else None, selection, report)
    finally:
        await reading.close()
        await database.close()
    return report


async def compare_with_log(settings: Settings, clients: LogClients, rows: Iterable[Sequence[Any]]) -> VerifyReport:
    """Fold the candles in rows of the query `stored_candles` again and compare; nothing is written.

    The `clients` stay connected.

    Raises:
        KafkaUnavailable: when no broker answers.
    """
    report = VerifyReport()
    async with clients.admin.client() as client:
        log_name = await own_log(settings, client)
    provable = []
    for *fields, pending in rows:
        candle = stored_candle(fields)
        if pending:
            report.pending.append(_key(candle))
        elif candle.log != log_name:
            report.unprovable.append(_key(candle))
        else:
            provable.append(candle)
    if provable:
        async with clients.reader() as reader:
            await _compare(TickLog(settings, reader, own=log_name), provable, report)
    return report


async def _rebuild(settings: Settings, database: Database, writer: Writer, lies: Sequence[Candle]) -> int:
    """Fold these periods from all that the log holds of them, and store that instead of what is there."""
    period_of: Callable[[Candle], PeriodKey] = attrgetter("source", "symbol", "ts")
    periods = {period_of(candle) for candle in lies if candle.timeframe == M1.name}
    if not periods:
        return 0
    times = [utc(ts) for _, _, ts in periods]
    selection = Selection(from_=min(times), to=max(times) + timedelta(minutes=1), periods=periods)
    completeness = Completeness(settings, database, writer.log_ends.own_log, selection, distrusts_rows=True)
    rebuilt = 0
    done: set[PeriodKey] = set()
    async for candles in completeness.missing():
        # A second partition with ticks of the same period adds to what the first has brought.
        first = [candle for candle in candles if period_of(candle) not in done]
        more = [candle for candle in candles if period_of(candle) in done]
        done.update(map(period_of, first))
        if first:
            rebuilt += await store_folds(database, writer, first, instead=True)
        if more:
            await store_folds(database, writer, more)
    return rebuilt


async def _complete(completeness: Completeness, report: VerifyReport, repair_with: Repair | None) -> None:
    found: set[Key] = set()
    async for candles in completeness.missing():
        found.update(map(_key, candles))
        if repair_with is not None:
            report.repaired += await repair_with(candles)
    report.missing += sorted(found, key=lambda key: (key.ts, key.symbol, key.source))


async def _compare_derived(
    reading: Connection, repair_in: Database | None, selection: Selection, report: VerifyReport
) -> None:
    # Minutes first: hours are rolled up from them.
    unfilled = await unfilled_bars(reading, selection)
    report.unfilled += unfilled
    if repair_in is not None:
        report.repaired += await fill_bars(repair_in, unfilled)
    async for wrong in wrong_roll_ups(reading, selection):
        report.wrong_roll_ups += wrong
        if repair_in is not None:
            report.repaired += await roll_up_again(repair_in, wrong)


async def _passes(
    connection: Connection, selection: dict[str, Any], report: VerifyReport, on_progress: Callable[[int], None]
) -> AsyncIterator[list[Candle]]:
    # Stored candles of one log at a time, in the order of their first offsets.
    chunk: list[Candle] = []
    async with connection.transaction(), connection.cursor(name="stored_candles") as cursor:
        cursor.itersize = _FETCH_ROWS
        await cursor.execute(SQL["stored_candles"], selection)
        async for *fields, pending in cursor:
            candle = stored_candle(fields)
            if pending:
                report.pending.append(_key(candle))
                on_progress(1)
                continue
            if chunk and (len(chunk) == _PASS_CANDLES or chunk[0].log != candle.log):
                yield chunk
                chunk = []
            chunk.append(candle)
    if chunk:
        yield chunk


class _Compared(NamedTuple):
    """Stored candles that are not as the log has them."""

    #: The folds of those that differ.
    wrong: list[Candle]
    #: Candles whose offsets hold none of their ticks.
    without_tick: list[Candle]
    #: Candles whose offsets the log does not hold, or no longer holds.
    unreadable: list[Candle]


async def _compare(tick_log: TickLog, stored: Sequence[Candle], report: VerifyReport) -> _Compared:
    # Counts in the report as well.
    proofs: dict[Proof, Candle] = {}
    for candle in stored:
        try:
            proofs[_proof(candle)] = candle
        except UnknownTimeframe:
            report.unprovable.append(_key(candle))
    outcome = await tick_log.refold(proofs)
    compared = _Compared([], [], [proofs[proof] for proof in outcome.unprovable])
    report.unprovable += map(_key, compared.unreadable)
    for proof, fold in outcome.folds.items():
        candle = proofs[proof]
        folded = proven_candle(fold, proof.ranges, candle.log, closed=candle.closed)
        differences = _differences(candle, folded)
        report.checked += 1
        report.equal += not differences
        report.differences += differences
        if folded is None:
            compared.without_tick.append(candle)
        elif differences:
            compared.wrong.append(folded)
    return compared


def _differences(stored: Candle, folded: Candle | None) -> list[Difference]:
    key = (stored.source, stored.symbol, utc(stored.ts), stored.timeframe)
    if folded is None:
        return [Difference(*key, "candle", stored.volume, None)]
    return [
        Difference(*key, name, getattr(stored, name), getattr(folded, name))
        for name in PROVEN_FIELDS
        if getattr(stored, name) != getattr(folded, name)
    ]


def _key(candle: Candle) -> Key:
    return Key(candle.source, candle.symbol, utc(candle.ts), candle.timeframe)


def _proof(candle: Candle) -> Proof:
    timeframe = timeframe_named(candle.timeframe)
    _ = timeframe.base_width_ms
    return Proof(candle.source, candle.symbol, candle.ts, candle.offsets, timeframe)


def _msc(moment: datetime | None) -> int:
    # NULL, in a row that somebody edited, never equals a fold.
    return -1 if moment is None else time_msc(moment)


def stored_candle(fields: Sequence[Any]) -> Candle:
    """The candle in a row of the query `stored_candles`, without its last column."""
    (
        ts, symbol, timeframe, open_, high, low, close, volume, real_volume, spread, source, closed,
        first_tick, last_tick, log, offsets, received_at,
    ) = fields  # fmt: skip
    return Candle(
        source=source, symbol=symbol, timeframe=timeframe, ts=time_msc(ts), open=open_, high=high, low=low, close=close,
        volume=volume, real_volume=real_volume, spread=spread, first_tick=_msc(first_tick),
        last_tick=_msc(last_tick), log=log, offsets=from_multirange(offsets), closed=closed,
        received=_msc(received_at), emitted=_msc(received_at),
    )  # fmt: skip
