"""Queries of stored candles: the request, the page of rows that answers it, and where bars begin."""

import asyncio
import math
import re
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from psycopg.rows import class_row

from dashboard.answers import Refusal
from dashboard.database import SQL, Connection, Database
from marketdata.offsets import Ranges, from_multirange
from marketdata.timeframes import M1, TIMEFRAMES
from marketdata.wire import decimals_of

DEFAULT_LIMIT: Final = 500
#: Two weeks of M1; more comes page by page.
MAX_LIMIT: Final = 20_000

#: Timeframes whose bars are folded from minutes for each answer.
_WIDTHS: Final = {
    name: timedelta(milliseconds=timeframe.base_width_ms)
    for name, timeframe in TIMEFRAMES.items()
    if timeframe.parent == M1.name
}

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: PostgreSQL accepts later times, which Python's datetime cannot hold.
_END_OF_TIME: Final = datetime(9999, 12, 31, tzinfo=UTC)

#: Smaller numbers are epoch seconds (1970 to 2286); as milliseconds they would be of the first months of 1970.
_EPOCH_MILLISECONDS_FROM: Final = 10**10
#: A Unix time, which programs write with a fraction as well.
_UNIX_TIME: Final = re.compile(r"\d+(\.\d+)?", re.ASCII)

_TIME_FORMS: Final = (
    "2019-02-04, 2019-02-04T10:30Z, 2019-02-04T12:30+02:00 (no zone means UTC), epoch seconds or milliseconds"
)

#: Cached bars of each timeframe.
_CACHED_BARS: Final = 32

#: Rows that are decoded before others have their turn.
_ROWS_AT_ONCE: Final = 2_000

#: Bounds are cached for this long (seconds), because the start of the day may be changed (set_candle_day).
_BAR_VALID_SECONDS: Final = 60.0

#: The longest wait for a bar's bounds (seconds): the streams wait meanwhile.
_PATIENCE_SECONDS: Final = 2.0


class Row(NamedTuple):
    """One candle of an answer, in the order of its columns."""

    ts: datetime
    symbol: str
    source: str
    open: float
    high: float
    low: float
    close: float
    #: Ticks.
    volume: int
    real_volume: float | None
    spread: int | None
    #: False while the bar still moves.
    closed: bool


class ProvenRow(NamedTuple):
    """One minute of an answer, with its proof; a broker's bar has none."""

    ts: datetime
    symbol: str
    source: str
    open: float
    high: float
    low: float
    close: float
    volume: int
    real_volume: float | None
    spread: int | None
    closed: bool
    log: str | None
    #: As in the records of `candles.m1`.
    offsets: Ranges | None
    #: When its newest tick was received.
    received_at: datetime | None


AnyRow = Row | ProvenRow


@dataclass(frozen=True, slots=True)
class Request:
    """Candles of `[from_, to)` in order of time from `from_`; without `from_` the newest before `to`."""

    symbol: str
    timeframe: str
    source: str | None
    from_: datetime | None
    to: datetime
    limit: int
    proof: bool = False

    @classmethod
    def parse(
        cls, *, symbol: str, timeframe: str, source: str | None, from_: str | None, to: str | None,
        before: str | None, limit: int, proof: bool = False,
    ) -> "Request":  # fmt: skip
        """The request that the query parameters describe.

        Raises:
            Refusal: 400 naming the parameter that cannot be used and what is accepted.
        """
        name = timeframe_asked(timeframe)
        if not 1 <= limit <= MAX_LIMIT:
            raise _unusable("limit", f"use 1 to {MAX_LIMIT:,}; the answer's `next` leads to the rest")
        if proof and name != "M1":
            raise _unusable("proof", "only M1 is folded from the log; longer bars are folded from M1")
        if before is not None and (from_ is not None or to is not None):
            raise _unusable("before", "`before` asks for the newest candles before a time; leave out `from` and `to`")
        check_names(symbol, source)
        start = None if from_ is None else parse_time("from", from_)
        end = _END_OF_TIME
        if to is not None or before is not None:
            end = parse_time("to", to) if to is not None else parse_time("before", before or "")
        if start is not None and start >= end:
            raise _unusable("from", "`from` must be before `to`")
        return cls(symbol, name, source or None, start, end, limit, proof)

    def next_page(self, rows: Sequence[AnyRow]) -> str | None:
        """The query string of the page that follows `rows`, None when this is the last."""
        # Even where no source was asked for: by then another one may have the newest candle.
        return self.following(rows[0].ts, rows[-1].ts, rows[0].source) if len(rows) >= self.limit else None

    def following(self, first: datetime, last: datetime, source: str) -> str:
        """The query string of the page that follows one of this source with these first and last bars."""
        query = {"symbol": self.symbol, "timeframe": self.timeframe, "limit": str(self.limit)}
        if self.proof:
            query["proof"] = "true"
        query["source"] = source
        if self.from_ is None:
            query["before"] = _iso(first)
        else:
            query["from"] = _iso(last + timedelta(milliseconds=1))
            if self.to != _END_OF_TIME:
                query["to"] = _iso(self.to)
        return urlencode(query)


async def read_candles(connection: Connection, request: Request) -> Sequence[AnyRow]:
    """The candles that the request asks for, in order of time; without a source, of the one with the newest candle."""
    about: dict[str, Any] = {
        "symbol": request.symbol, "timeframe": request.timeframe, "from_": request.from_, "to": request.to,
        "limit": request.limit, "source": await source_asked(connection, request.symbol, request.source),
    }  # fmt: skip
    if request.proof:
        return await _proven_rows(connection, about)
    if request.from_ is None:
        return await _rows(connection, "last_candles", about)
    if request.timeframe == "M1":
        return await _rows(connection, "minutes", about)
    if request.timeframe not in _WIDTHS:
        return await _rows(connection, "candles", about)
    return await _rows_from(connection, about)


async def source_asked(connection: Connection, symbol: str, source: str | None) -> str | None:
    """The source that a request names, or the one with the symbol's newest candle; None when nobody sent it."""
    return source or await _value(connection, "newest_source", {"symbol": symbol})


async def read_digits(connection: Connection, rows: Sequence[AnyRow]) -> int | None:
    """Decimals of the prices in `rows`, which are of one symbol and source; None where their sender does not say."""
    if not rows:
        return None
    point = await _value(connection, "instrument", {"source": rows[0].source, "symbol": rows[0].symbol})
    return None if point is None else decimals_of(point)


async def _rows_from(connection: Connection, about: dict[str, Any]) -> list[Row]:
    # candles() folds the whole range that it is given, so it is given one range after another: each begins at the
    # next stored minute and is as wide as the bars that are still missing.
    rows: list[Row] = []
    width, end, limit = _WIDTHS[about["timeframe"]], about["to"], about["limit"]
    start = about["from_"]
    while len(rows) < limit:
        minute = await _value(connection, "next_minute", about | {"from_": start})
        if minute is None:
            break
        # The bar of that minute may begin a little before it; what begins before `start` is not asked for.
        begin = max(start, minute - width)
        start = min(end, minute + width * (limit - len(rows)))
        rows += await _rows(connection, "candles", about | {"from_": begin, "to": start, "limit": limit - len(rows)})
        if start >= end:
            break
    return rows


async def _rows(connection: Connection, name: str, about: dict[str, Any]) -> list[Row]:
    async with connection.cursor(row_factory=class_row(Row)) as cursor:
        await cursor.execute(SQL[name], about)
        rows = batch = await cursor.fetchmany(_ROWS_AT_ONCE)
        while len(batch) == _ROWS_AT_ONCE:
            # Others' turn: twenty thousand rows take as long as ten small requests.
            await asyncio.sleep(0)
            batch = await cursor.fetchmany(_ROWS_AT_ONCE)
            rows += batch
        return rows


async def _proven_rows(connection: Connection, about: dict[str, Any]) -> list[ProvenRow]:
    name = "last_proven_minutes" if about["from_"] is None else "proven_minutes"
    cursor = await connection.execute(SQL[name], about)
    rows = [ProvenRow._make(row) for row in await cursor.fetchall()]
    return [row._replace(offsets=None if row.offsets is None else from_multirange(row.offsets)) for row in rows]


async def _value(connection: Connection, name: str, about: dict[str, Any]) -> Any:
    cursor = await connection.execute(SQL[name], about)
    row = await cursor.fetchone()
    return row[0] if row is not None else None


class Bar(NamedTuple):
    """A bar's bounds (UTC epoch milliseconds), and until when they are valid (monotonic seconds)."""

    starts: int
    ends: int
    valid_until: float = math.inf


class BarStarts:
    """The bounds of bars, as the database computes them; cached."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._bars: dict[str, deque[Bar]] = {}

    async def of(self, timeframe: str, ts: int) -> Bar | None:
        """The bar of `timeframe` that holds the minute `ts` (UTC epoch milliseconds).

        None while the database does not answer.
        """
        if timeframe == M1.name:
            starts = ts - ts % M1.base_width_ms
            return Bar(starts, starts + M1.base_width_ms)
        bars = self._bars.setdefault(timeframe, deque(maxlen=_CACHED_BARS))
        now = time.monotonic()
        for bar in reversed(bars):
            if bar.starts <= ts < bar.ends and now < bar.valid_until:
                return bar
        try:
            moment = datetime.fromtimestamp(ts / 1000, UTC)
            row = await self._database.within(_PATIENCE_SECONDS, bar_bounds(self._database, timeframe, moment))
        except Refusal:
            return None
        if row is None:
            return None
        bar = Bar(epoch_ms(row[0]), epoch_ms(row[1]), now + _BAR_VALID_SECONDS)
        bars.append(bar)
        return bar


def epoch_ms(moment: datetime) -> int:
    """UTC epoch milliseconds."""
    return round(moment.timestamp() * 1000)


async def bar_bounds(database: Database, timeframe: str, moment: datetime) -> tuple[datetime, datetime] | None:
    """Opening and end of the bar of `timeframe` that holds a moment; None when it has none."""
    async with database.reading() as connection:
        about = {"timeframe": timeframe, "moment": moment}
        return await (await connection.execute(SQL["bar_bounds"], about)).fetchone()


def timeframe_asked(text: str) -> str:
    """The name of the timeframe that a parameter names.

    Raises:
        Refusal: 400 with those that there are.
    """
    if (name := text.upper()) not in TIMEFRAMES:
        raise _unusable("timeframe", f"{text!r} is no timeframe; use one of {', '.join(TIMEFRAMES)}")
    return name


def check_names(symbol: str, source: str | None) -> None:
    """Refuse names that no record has and PostgreSQL cannot take.

    Raises:
        Refusal: 400.
    """
    if "\0" in symbol or (source is not None and "\0" in source):
        raise _unusable("symbol", "a NUL is no part of a name")


def parse_time(name: str, text: str) -> datetime:
    """The time that the query parameter `name` gives.

    Raises:
        Refusal: 400 with the accepted forms.
    """
    try:
        if _UNIX_TIME.fullmatch(text):
            number = float(text)
            return _EPOCH + timedelta(milliseconds=number if number >= _EPOCH_MILLISECONDS_FROM else number * 1000)
        # A `+` in a URL that was not encoded arrives as a space.
        moment = datetime.fromisoformat(
            text.strip().replace(" ", "+") if text.count(" ") == 1 and "T" in text else text
        )
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise _unusable(name, f"{text!r} is no time; use {_TIME_FORMS}") from exc


def _unusable(name: str, message: str) -> Refusal:
    return Refusal(400, "INVALID_PARAMETER", f"{name}: {message}")


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
