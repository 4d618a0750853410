"""Reads the ticks of one source and symbol from the log: each once, exactly those that the candles count.

The proof in a minute's row names the records that hold the minute. What the table cannot know yet is read from the end
of the log (docs/decisions/0014). Each minute is then refolded by the same fold that made its candle, which returns the
ticks instead.
"""

import asyncio
import csv
import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, takewhile
from typing import Any, Final, NamedTuple, Self, cast

from marketdata.errors import LogTruncated
from marketdata.fold import CandleFold
from marketdata.offsets import Ranges, contains, from_multirange, size, union
from marketdata.refold import (
    CountedTicks,
    Proof,
    RecordFold,
    TickRow,
    bridged,
    iso_milliseconds,
    shown,
)
from marketdata.resends import FullMinutes
from marketdata.runs import flows
from marketdata.tick import DAY_MS, FIELDS, MINUTE_MS, Columns, Tick, period_of, rows_of, values_of
from runtime.foreign import cell
from runtime.logreader import LogClients
from runtime.settings import Settings
from runtime.ticklog import Refolded, TickLog
from sink.db.connection import Connection
from sink.db.session import SQL
from sink.times import utc
from sink.unstored import find_unstored, log_state

#: Maximum number of ticks and of minutes folded in one pass over the log: they are held in memory, some 50 MB.
PASS_TICKS: Final = 100_000
_PASS_MINUTES: Final = 1_500

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
class TickBatch:
    """The ticks of one minute, as far as they are asked for, or of minutes that follow each other.

    Those of `TickReader.batches` never span two days (UTC). They have one of three forms; `rows` gives them in any.
    """

    #: Start of the minute, or of the first (UTC epoch milliseconds).
    ts: int
    #: Those that count, in order of time.
    ticks: Sequence[Tick] | Columns = ()
    #: Raw ones, as `RecordFold.rows` gives them.
    records: Sequence[TickRow] = ()
    #: A `pyarrow.Table` with the columns of `runtime.archive.columns.TICK_COLUMNS`, in order of time.
    table: Any = None
    #: The log no longer holds all records that the minute was folded from: there are no ticks.
    is_gone: bool = False
    #: The symbol is charted by last, so that the volume of the minute is not its number of ticks.
    has_deals: bool = False

    def __len__(self) -> int:
        """Number of ticks."""
        return len(self.ticks) + len(self.records) + (0 if self.table is None else len(self.table))

    @cached_property
    def rows(self) -> Sequence[TickRow]:
        """The ticks as rows."""
        if self.table is not None:
            from runtime.archive.columns import rows_in  # noqa: PLC0415  # not everywhere is pyarrow

            return rows_in(self.table)
        return self.records or list(rows_of(self.ticks))

    @property
    def values(self) -> Sequence[Sequence[Any]]:
        """The values of each field of the ticks."""
        if self.table is not None:
            from runtime.archive.columns import values_in  # noqa: PLC0415  # as above

            return values_in(self.table)
        if self.records:
            return list(zip(*(row[: len(FIELDS)] for row in self.records), strict=True))
        return values_of(self.ticks)

    def part(self, begin: int, end: int) -> "TickBatch":
        """The ticks from index `begin` to before `end`."""
        table = None if self.table is None else self.table.slice(begin, end - begin)
        return replace(self, ticks=self.ticks[begin:end], records=self.records[begin:end], table=table)


class Minute(NamedTuple):
    """What the table and the end of the log know of a minute."""

    #: Its start (UTC epoch milliseconds).
    ts: int
    ranges: Ranges
    #: Its candle was folded from another log.
    is_foreign: bool
    #: As far as known: of a symbol charted by last its deals.
    ticks: int
    #: The candle in the table is not the fold of all these records yet.
    is_partial: bool


class TickReader:
    """Reads the ticks of one range; use it as `async with TickReader(…) as reader`."""

    def __init__(
        self,
        settings: Settings,
        reading: Reading,
        wanted: TickRange,
        *,
        raw: bool = False,
        pass_ticks: int = PASS_TICKS,
        on_progress: Callable[[int], None] = lambda _: None,
        clients: LogClients | None = None,
    ) -> None:
        """`raw` asks for the ticks of every record; `on_progress` is told how many minutes were dealt with.

        `clients` stay connected, and serve the next reader; without them it connects for itself.
        """
        self._settings = settings
        self._reading = reading
        self._wanted = wanted
        self._kind = RecordFold if raw else CountedTicks
        self._pass_ticks = pass_ticks
        self._on_progress = on_progress
        self._clients = clients
        self._clients_held = AsyncExitStack()
        self._tick_log: TickLog
        self._own = ""
        self._unstored: dict[int, Ranges] = {}

    async def __aenter__(self) -> Self:
        """Open the log, and look for what no row names yet.

        Raises:
            KafkaUnavailable: when no broker answers.
            psycopg.Error: when the database does not, or what the caller's `reading` makes of it.
        """
        settings, clients = self._settings, self._clients
        async with AsyncExitStack() as stack:
            if clients is None:
                clients = await stack.enter_async_context(aclosing(LogClients(settings)))
            opening = asyncio.ensure_future(stack.enter_async_context(clients.reader()))
            try:
                async with clients.admin.client() as client:
                    state = await log_state(settings, client)
                self._tick_log = TickLog(settings, await opening, own=state.ticks_log, ends=state.ticks)
            except BaseException:
                opening.cancel()
                await asyncio.gather(opening, return_exceptions=True)
                raise
            self._own = state.ticks_log
            self._unstored = await find_unstored(settings, self._reading, self._tick_log, self._wanted, state)
            self._clients_held = stack.pop_all()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._clients_held.__aexit__(*exc_info)

    async def batches(self) -> AsyncGenerator[TickBatch, None]:
        """The minutes that have ticks, or had some that are gone, in order of time.

        Holds at most PASS_TICKS ticks in memory, or the ticks of one minute, and a connection only for single queries.

        Raises: as entering does.
        """
        group: list[Minute] = []
        ticks = 0
        async with aclosing(self.minutes()) as minutes:
            async for minute in minutes:
                is_full = ticks + minute.ticks > self._pass_ticks or len(group) == _PASS_MINUTES
                if group and (is_full or minute.ts // DAY_MS != group[0].ts // DAY_MS):
                    async for found in self.read(group):
                        yield found
                    self._on_progress(len(group))
                    group, ticks = [], 0
                group.append(minute)
                ticks += minute.ticks
        async for found in self.read(group):
            yield found
        self._on_progress(len(group))

    async def read(self, minutes: Sequence[Minute]) -> AsyncIterator[TickBatch]:
        """The ticks of these minutes, which are ascending; all of them are held, and those of `PASS_TICKS` at most."""
        if (batch := await self._archived(minutes)) is not None:
            yield batch
            return
        async for found in self._fold(minutes):
            yield found

    async def read_in_turn(self, minutes: Sequence[Minute]) -> AsyncGenerator[TickBatch, None]:
        """The ticks of these minutes, which are ascending, in one pass over the log, as early as they are complete.

        Where ticks come late, or most of the minutes come twice, up to all of them are held. A batch may have minutes
        that follow each other.
        """
        given = 0
        async with aclosing(self._unfolded(minutes)) as batches:
            async for batch, reached in batches:
                given = reached
                if len(batch):
                    yield batch
        proofs = self._proofs(minutes[given:]).values()
        async with aclosing(self._tick_log.refold_in_turn(list(proofs), new_fold=self._kind)) as folds:
            async for proof, fold in folds:
                yield TickBatch(proof.ts, is_gone=True) if fold is None else self._batch(proof.ts, fold)

    async def _unfolded(self, minutes: Sequence[Minute]) -> AsyncGenerator[tuple[TickBatch, int], None]:
        """The ticks of the first of these minutes without a fold, and how many minutes they are by then.

        A row says how many ticks of its minute count. Where its records have no more of them, all count; and where time
        never goes back, they are in order. The first minute of which this is not so ends it.
        """
        sure = list(takewhile(lambda one: one.ranges and not (one.is_foreign or one.is_partial), minutes))
        to_read = bridged(chain.from_iterable(minute.ranges for minute in sure))
        if self._kind is not CountedTicks or len({partition for partition, _, _ in to_read}) != 1:
            return
        wanted, flow, given = self._wanted, FullMinutes(sure), 0
        series = (wanted.source, wanted.symbol)
        with suppress(LogTruncated):  # The fold says of which minutes.
            for partition, first, last in to_read:
                async for chunk in self._tick_log.read(partition, first, last, series={series}):
                    _, frames = flows(chunk).get(series, ((), ()))
                    ticks = flow.feed(frames, chunk[-1][0]) if chunk else None
                    if not flow.is_whole:
                        return
                    if ticks is not None:
                        batch = TickBatch(sure[given].ts, ticks.between(wanted.first_ms, wanted.end_ms))
                        given = flow.given
                        yield batch, given
                    # Lets a server answer other requests.
                    await asyncio.sleep(0)

    async def is_archived(self, minutes: Sequence[Minute]) -> bool:
        """Whether these minutes, or some of the first of them, can be taken out of the archive's columns."""
        wanted = self._wanted
        ranges = [minute.ranges for minute in minutes[:1]]
        return await self._tick_log.archived_flow(wanted.source, wanted.symbol, ranges) is not None

    async def _archived(self, minutes: Sequence[Minute]) -> TickBatch | None:
        """The archive's columns of these minutes, where they are what a fold would count."""
        wanted = self._wanted
        if self._kind is not CountedTicks or not minutes:
            return None
        flow = await self._tick_log.archived_flow(wanted.source, wanted.symbol, [m.ranges for m in minutes])
        if flow is None:
            return None
        first_ms, end_ms = minutes[0].ts, minutes[-1].ts + MINUTE_MS
        table = await asyncio.to_thread(flow.ticks, first_ms, end_ms)
        if table is None or len(table) != sum(minute.ticks for minute in minutes):
            return None
        if first_ms < wanted.first_ms or end_ms > wanted.end_ms:
            table = await asyncio.to_thread(flow.ticks, max(first_ms, wanted.first_ms), min(end_ms, wanted.end_ms))
        return TickBatch(first_ms, table=table)

    async def _fold(self, minutes: Sequence[Minute]) -> AsyncIterator[TickBatch]:
        proofs = self._proofs(minutes)
        parts = self._tick_log.refold_parts(proofs.values(), new_fold=self._kind, max_ticks=self._pass_ticks)
        part = Refolded()
        for minute in minutes:
            # Lets a server answer other requests.
            await asyncio.sleep(0)
            proof = proofs.get(minute.ts)
            while proof is not None and proof not in part.folds and proof not in part.unprovable:
                part = await anext(parts)
            if proof is None or proof in part.unprovable:
                yield TickBatch(minute.ts, is_gone=True)
                continue
            found = self._batch(minute.ts, part.folds.pop(proof))
            if len(found):
                yield found

    def _batch(self, ts: int, fold: CandleFold) -> TickBatch:
        """What the fold holds, as far as it is asked for."""
        first_ms, end_ms = self._wanted.first_ms, self._wanted.end_ms
        if isinstance(fold, RecordFold):
            return TickBatch(ts, records=[row for row in fold.rows() if first_ms <= row[0] < end_ms])
        ticks = cast(CountedTicks, fold).ticks()
        if ts < first_ms or ts + MINUTE_MS > end_ms:
            ticks = [tick for tick in ticks if first_ms <= tick.time_msc < end_ms]
        return TickBatch(ts, ticks, has_deals=cast(CountedTicks, fold).has_deals)

    async def gone(self, minutes: Sequence[Minute]) -> set[int]:
        """The starts of those minutes whose records the log no longer holds all."""
        held = await self._tick_log.available(m.ranges for m in minutes if not m.is_foreign)
        return {m.ts for m in minutes if m.is_foreign or not m.ranges or not contains(held, m.ranges)}

    def _proofs(self, minutes: Sequence[Minute]) -> dict[int, Proof]:
        """The proofs of those minutes that were folded from this log."""
        source, symbol = self._wanted.source, self._wanted.symbol
        return {m.ts: Proof(source, symbol, m.ts, m.ranges) for m in minutes if not m.is_foreign}

    async def minutes(self) -> AsyncGenerator[Minute, None]:
        """What the table and the end of the log know of each minute, in order of time."""
        about = self._wanted.about | {"log": self._own, "limit": _PASS_MINUTES}
        begin, end = period_of(self._wanted.first_ms), self._wanted.end_ms
        left = sorted(self._unstored, reverse=True)
        while begin < end:
            async with self._reading() as connection:
                rows = await (await connection.execute(SQL["tick_proofs"], about | {"from_": utc(begin)})).fetchall()
            reached = rows[-1][0] + MINUTE_MS if len(rows) == _PASS_MINUTES else end
            known = {ts: Minute(ts, from_multirange(ranges), *rest) for ts, ranges, *rest in rows}
            while left and left[-1] < reached:
                ts = left.pop()
                known[ts] = _with_unstored(ts, known.get(ts), self._unstored[ts])
            for ts in sorted(known):
                yield known[ts]
            begin = reached


def _with_unstored(ts: int, stored: Minute | None, ranges: Ranges) -> Minute:
    if stored is None:
        return Minute(ts, ranges, is_foreign=False, ticks=size(ranges), is_partial=True)
    return Minute(ts, union(stored.ranges, ranges), stored.is_foreign, stored.ticks + size(ranges), is_partial=True)


def missing_spans(minutes: Iterable[int]) -> list[tuple[int, int]]:
    """Group ascending minutes into spans of consecutive ones: start of the first, end of the last."""
    spans: list[tuple[int, int]] = []
    for ts in minutes:
        if spans and spans[-1][1] == ts:
            spans[-1] = (spans[-1][0], ts + MINUTE_MS)
        else:
            spans.append((ts, ts + MINUTE_MS))
    return spans


def csv_of_ticks(batch: TickBatch, *, raw: bool) -> bytes:
    """Lines of CSV, with the columns of `shown`; a double has every digit (shortest round trip)."""
    if not raw:
        # Nothing of a tick itself is text. A third of the time of the csv module.
        times, *others = batch.values
        cells = zip(
            map(iso_milliseconds, times), map(str, times), *(map(repr, values) for values in others), strict=True
        )
        lines = "\n".join(map(",".join, cells))
        return f"{lines}\n".encode() if lines else b""
    text = io.StringIO()
    # Of a record the request's id is text, and its sender chose it.
    csv.writer(text, lineterminator="\n").writerows([cell(one) for one in shown(row)] for row in batch.rows)
    return text.getvalue().encode()
